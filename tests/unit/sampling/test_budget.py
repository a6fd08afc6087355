"""More completions where rewards differ, none where they are alike, as usual where nothing is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.sampling.budget import Budget

BUDGET = Budget(first=2, usual=4, most=8, min_spread=0.1)


def test_the_first_wave_is_small_only_where_rewards_can_be_had() -> None:
    assert BUDGET.opening(previewed=True) == 2
    assert BUDGET.opening(previewed=False) == 4
    assert Budget(0, 4, 8, 0.1).opening(previewed=True) == 4


@pytest.mark.parametrize(
    ("asked", "rewards", "plain", "more"),
    [
        (2, [1.0, 1.0], [True, True], 0),
        (2, [0.5, 0.59], [True, True], 0),
        (2, [0.0, 1.0], [True, True], 6),
        (2, [0.0, 0.0, 1.0], [True, True, False], 2),
        (4, [0.0] * 4 + [1.0], [True] * 4 + [False], 0),
        (4, [0.0, 0.0, 1.0, 0.0], [True] * 4, 4),
        (2, None, [True, True], 2),
        (2, [None, 1.0], [True, True], 2),
        (4, None, [True] * 4, 0),
        (8, [0.0, 1.0], [True, True], 0),
        (2, [1.0], [True], 2),
        (2, [], [], 2),
        (2, [1.0, 1.0], [True, False], 0),
    ],
)
def test_how_many_more(asked: int, rewards: list[float | None] | None, plain: list[bool], more: int) -> None:
    assert BUDGET.more(asked, None if rewards is None else list(zip(rewards, plain, strict=True))) == more


def test_without_a_larger_limit_the_usual_number_is_the_most() -> None:
    assert Budget(2, 4, 0, 0.1).more(2, [(0.0, True), (1.0, True)]) == 2


@given(
    st.lists(st.tuples(st.none() | st.floats(0.0, 1.0), st.booleans()), max_size=12),
    st.integers(1, 20), st.integers(1, 8), st.integers(0, 8), st.integers(0, 8), st.floats(0.0, 1.0),
)  # fmt: skip
def test_asking_always_ends_within_the_limit(
    rewards: list[tuple[float | None, bool]], asked: int, usual: int, extra: int, first: int, spread: float
) -> None:
    budget = Budget(min(first, usual), usual, usual + extra, spread)
    more = budget.more(asked, rewards)
    assert more >= 0
    assert asked + more <= max(asked, budget.limit)
