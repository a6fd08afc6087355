"""Advantages: the baseline is the plain mean, and every sample is either kept or counted."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.advantage import Weighting, advantages, select

SAMPLES = st.tuples(st.sampled_from([PLAIN, "thinking"]), st.integers(0, 6), st.floats(0, 1, width=16))


def group(*samples: tuple[str, int, float], prompt_tokens: int = 3) -> ScoredGroup:
    """Samples are (strategy, tokens, reward)."""
    completions = tuple(
        Completion(i, strategy, "", tuple(range(length)), (-1.0,) * length, "stop")
        for i, (strategy, length, _) in enumerate(samples)
    )
    found = CompletionGroup("p", tuple(range(prompt_tokens)), completions)
    return ScoredGroup(found, tuple(reward for *_, reward in samples), ())


def test_baseline_is_the_mean_of_plain_rewards_alone() -> None:
    assert advantages([0.0, 0.5, 1.0], [True, True, False]) == [-0.25, 0.25, 0.75]


def test_without_a_plain_sample_there_is_no_baseline() -> None:
    with pytest.raises(ValueError, match="no baseline"):
        advantages([0.1, 0.9], [False, False])


def test_strategy_samples_are_kept_only_above_the_baseline_and_never_masked() -> None:
    chosen = select(
        [group((PLAIN, 2, 0.2), (PLAIN, 2, 0.6), ("hint", 2, 0.4), ("hint", 2, 0.9))],
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
    chosen = select([group(*samples)], min_spread=0.05, max_sequence_tokens=100)
    assert chosen.groups == ()
    assert chosen.dropped_groups == {reason: 1}


def test_a_sequence_that_is_too_long_is_dropped_but_its_reward_counts_in_the_baseline() -> None:
    chosen = select([group((PLAIN, 98, 1.0), (PLAIN, 97, 0.0))], min_spread=0.05, max_sequence_tokens=100)
    assert [s.advantage for s in chosen.groups[0].samples] == [-0.5]
    assert chosen.dropped_samples == {"too_long": 1}
    assert chosen.longest_completion == 97


@given(st.lists(st.lists(SAMPLES, max_size=8), max_size=5))
def test_everything_is_kept_or_counted(drawn: list[list[tuple[str, int, float]]]) -> None:
    groups = [group(*samples) for samples in drawn]
    chosen = select(groups, min_spread=0.05, max_sequence_tokens=7)
    assert len(chosen.groups) + sum(chosen.dropped_groups.values()) == len(groups)
    kept = sum(len(g.samples) for g in chosen.groups) + sum(chosen.dropped_samples.values())
    offered = [g for g in groups if g.spread >= 0.05]
    assert kept <= sum(len(g.group.completions) for g in offered)
    for found in chosen.groups:
        assert any(s.advantage for s in found.samples)
        assert all(s.token_ids and len(s.token_ids) <= 4 for s in found.samples)
        assert all(s.advantage > 0 for s in found.samples if s.weighting is Weighting.UNIT)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=16))
def test_plain_advantages_sum_to_zero(rewards: list[float]) -> None:
    assert statistics.fmean(advantages(rewards, [True] * len(rewards))) == pytest.approx(0, abs=1e-12)
