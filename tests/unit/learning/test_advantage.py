"""Selection: every sample is either kept or counted, under every objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.advantage import Selection, Weighting, select
from tao_daemon.learning.objectives.clipped import ClippedPolicyGradient
from tao_daemon.learning.objectives.grpo import Grpo
from tao_daemon.learning.objectives.oapl import Oapl
from tao_daemon.learning.objectives.objective import Objective
from tao_daemon.learning.objectives.raft import Raft
from tao_daemon.learning.objectives.ratios import Clip

CLIPPED = ClippedPolicyGradient(Clip(0.2, 0.28, 4.0))
OBJECTIVES: list[Objective] = [CLIPPED, Grpo(Clip(0.2, 0.28, 4.0)), Oapl(1.0, 0.1), Raft()]
SAMPLES = st.tuples(st.sampled_from([PLAIN, "thinking"]), st.integers(0, 6), st.floats(0, 1, width=16))


def group(*samples: tuple[str, int, float], prompt_tokens: int = 3) -> ScoredGroup:
    """Samples are (strategy, tokens, reward)."""
    completions = tuple(
        Completion(i, strategy, "", tuple(range(length)), (-1.0,) * length, "stop")
        for i, (strategy, length, _) in enumerate(samples)
    )
    found = CompletionGroup("p", tuple(range(prompt_tokens)), completions)
    return ScoredGroup(found, tuple(reward for *_, reward in samples), ())


def test_strategy_samples_are_kept_only_above_the_baseline_and_never_masked() -> None:
    chosen = select(
        [group((PLAIN, 2, 0.2), (PLAIN, 2, 0.6), ("hint", 2, 0.4), ("hint", 2, 0.9))],
        CLIPPED,
        min_spread=0.05,
        max_sequence_tokens=100,
    )
    (found,) = chosen.groups
    assert [s.weighting for s in found.samples] == [Weighting.IMPORTANCE, Weighting.IMPORTANCE, Weighting.UNIT]
    assert [s.advantage for s in found.samples] == pytest.approx([-0.2, 0.2, 0.5])
    assert chosen.dropped_samples == {"strategy_not_better": 1}


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([(PLAIN, 2, 0.50), (PLAIN, 2, 0.54)], "no_spread"),
        ([("hint", 2, 0.0), ("hint", 2, 1.0)], "no_plain"),
        ([(PLAIN, 2, 0.5), (PLAIN, 2, 0.5), ("hint", 2, 0.1)], "no_signal"),
        ([(PLAIN, 98, 0.0), (PLAIN, 98, 1.0)], "no_signal"),
        ([], "no_spread"),
    ],
)
def test_groups_that_teach_nothing_are_dropped_with_a_reason(
    samples: list[tuple[str, int, float]], reason: str
) -> None:
    chosen = select([group(*samples)], CLIPPED, min_spread=0.05, max_sequence_tokens=100)
    assert chosen.groups == ()
    assert chosen.dropped_groups == {reason: 1}


def test_a_sequence_that_is_too_long_is_dropped_but_its_reward_counts_in_the_baseline() -> None:
    chosen = select([group((PLAIN, 98, 1.0), (PLAIN, 97, 0.0))], CLIPPED, min_spread=0.05, max_sequence_tokens=100)
    assert [s.advantage for s in chosen.groups[0].samples] == [-0.5]
    assert chosen.dropped_samples == {"too_long": 1}
    assert chosen.sizes.longest == 97


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
@given(drawn=st.lists(st.lists(SAMPLES, max_size=8), max_size=5))
def test_everything_is_kept_or_counted(objective: Objective, drawn: list[list[tuple[str, int, float]]]) -> None:
    groups = [group(*samples) for samples in drawn]
    chosen = select(groups, objective, min_spread=0.05, max_sequence_tokens=7)
    assert len(chosen.groups) + sum(chosen.dropped_groups.values()) == len(groups)
    kept = sum(len(g.samples) for g in chosen.groups) + sum(chosen.dropped_samples.values())
    offered = [g for g in groups if g.spread >= 0.05]
    assert kept <= sum(len(g.group.completions) for g in offered)
    for found in chosen.groups:
        assert any(s.advantage for s in found.samples)
        assert all(s.token_ids and len(s.token_ids) <= 4 for s in found.samples)
        assert all(s.advantage > 0 for s in found.samples if s.weighting is Weighting.UNIT)


def test_an_extracted_answer_is_never_corrected_by_a_sampler_that_did_not_sample_it() -> None:
    scored = group((PLAIN, 2, 0.0), ("thinking", 3, 1.0))
    answer = replace(scored.group.completions[1], logprobs=(), extracted=True)
    extracted = replace(scored, group=replace(scored.group, completions=(scored.group.completions[0], answer)))
    (found,) = select([extracted], CLIPPED, min_spread=0.05, max_sequence_tokens=100).groups
    assert found.samples[1].weighting is Weighting.UNIT
    assert found.samples[1].behaviour_logprobs == ()


def test_raft_keeps_the_best_alone_and_no_substitute_for_one_that_cannot_train() -> None:
    best = group((PLAIN, 2, 0.9), (PLAIN, 3, 0.9), (PLAIN, 4, 0.2), ("hint", 2, 0.5))
    chosen = select([best], Raft(), min_spread=0.05, max_sequence_tokens=100)
    assert [len(s.token_ids) for s in chosen.groups[0].samples] == [2, 3]
    assert chosen.dropped_samples == {"not_best": 1, "strategy_not_better": 1}
    too_long = group((PLAIN, 98, 0.9), (PLAIN, 3, 0.8), (PLAIN, 4, 0.2))
    chosen = select([too_long], Raft(), min_spread=0.05, max_sequence_tokens=100)
    assert chosen.dropped_groups == {"no_signal": 1}


def test_oapl_keeps_plain_samples_at_the_value_but_only_better_strategies() -> None:
    chosen = select(
        [group((PLAIN, 2, 0.5), (PLAIN, 2, 0.5), ("hint", 2, 0.5), ("hint", 2, 0.8))],
        Oapl(1.0, 0.1),
        min_spread=0.05,
        max_sequence_tokens=100,
    )
    assert [s.advantage for s in chosen.groups[0].samples] == pytest.approx([0.0, 0.0, 0.3])
    assert chosen.dropped_samples == {"strategy_not_better": 1}


def test_sizes_are_of_what_trains() -> None:
    groups = [group((PLAIN, 2, 0.0), (PLAIN, 4, 1.0)), group((PLAIN, 6, 0.0), (PLAIN, 6, 1.0), (PLAIN, 0, 0.5))]
    sizes = select(groups, CLIPPED, min_spread=0.05, max_sequence_tokens=100).sizes
    assert (sizes.longest, sizes.per_group, sizes.per_sample) == (6, 9.0, 4.5)
    with pytest.raises(ValueError, match="nothing was selected"):
        _ = Selection((), CLIPPED).sizes
