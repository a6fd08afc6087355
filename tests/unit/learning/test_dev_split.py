"""The dev split follows from the prompts alone, and is all or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.dev_split import MIN_GROUPS, is_dev, split

Rewards = tuple[float, ...]


def group(prompt: int, rewards: Rewards = (0.0, 1.0), strategy: str = PLAIN, length: int = 2) -> ScoredGroup:
    completions = tuple(
        Completion(index, strategy, "", (1,) * length, (-1.0,) * length, "stop") for index in range(len(rewards))
    )
    return ScoredGroup(CompletionGroup(f"p{prompt}", (prompt, 7), completions), rewards, ())


def kept(groups: list[ScoredGroup], fraction: float = 0.2) -> tuple[set[int], set[int]]:
    found = split(groups, fraction, min_spread=0.05, max_sequence_tokens=64)
    return (
        {scored.group.prompt_token_ids[0] for scored in found.training},
        {dev.prompt_token_ids[0] for dev in found.dev},
    )


def test_a_part_is_kept_and_never_trained_on() -> None:
    training, dev = kept([group(prompt) for prompt in range(500)])
    assert training | dev == set(range(500))
    assert not training & dev
    assert 70 <= len(dev) <= 130


@given(st.permutations(range(80)), st.integers(1, 80))
def test_sides_depend_on_the_prompt_alone(order: list[int], count: int) -> None:
    everything = kept([group(prompt) for prompt in range(80)], 0.4)[1]
    training, dev = kept([group(prompt) for prompt in order[:count]], 0.4)
    assert dev in (set(), everything & set(order[:count]))
    assert training == set(order[:count]) - dev


def test_too_few_are_none() -> None:
    chosen = [prompt for prompt in range(1000) if is_dev((prompt, 7), 0.2)]
    rest = [group(prompt) for prompt in range(1000, 1010) if not is_dev((prompt, 7), 0.2)]
    enough = [group(prompt) for prompt in chosen[:MIN_GROUPS]]
    assert len(kept(rest + enough)[1]) == MIN_GROUPS
    training, dev = kept(rest + enough[1:])
    assert not dev
    assert len(training) == len(rest) + MIN_GROUPS - 1


@pytest.mark.parametrize(
    "useless", [{"rewards": (0.5, 0.5)}, {"rewards": ()}, {"strategy": "hint"}, {"length": 63}, {"length": 0}]
)
def test_groups_that_cannot_tell_do_not_count(useless: dict[str, object]) -> None:
    chosen = [prompt for prompt in range(1000) if is_dev((prompt, 7), 0.2)][: MIN_GROUPS + 1]
    groups = [group(prompt) for prompt in chosen[:MIN_GROUPS]] + [group(chosen[-1], **useless)]  # type: ignore[arg-type]
    training, dev = kept(groups)
    assert dev == set(chosen[:MIN_GROUPS])
    assert not training  # nor is it trained on: it may come back with other rewards
    assert not kept(groups[1:])[1]


def test_no_fraction_is_no_split() -> None:
    assert kept([group(prompt) for prompt in range(100)], 0.0) == (set(range(100)), set())
