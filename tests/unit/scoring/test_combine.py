"""One scorer raw; several ranked within the group, then weighed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.scoring.combine import absolute, ranks, within_group

SCORES = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=2, max_size=9)
TABLES = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=1, max_size=4)
)


def test_one_scorer_is_taken_as_it_is() -> None:
    assert within_group([[0.2, 0.21, 0.9]], [3.0], min_spread=0.05) == [0.2, 0.21, 0.9]


def test_ranks_average_ties() -> None:
    assert ranks([0.1, 0.5, 0.5, 0.9], min_spread=0.05) == pytest.approx([0.0, 0.5, 0.5, 1.0])
    assert ranks([0.3, 0.1, 0.1], min_spread=0.05) == pytest.approx([1.0, 0.25, 0.25])


@pytest.mark.parametrize("scores", [[0.7], [0.4, 0.4, 0.4], [0.4, 0.41, 0.44]])
def test_a_scorer_that_tells_nothing_apart_gives_everyone_the_middle(scores: list[float]) -> None:
    assert ranks(scores, min_spread=0.05) == [0.5] * len(scores)


def test_weights_weigh_ranks() -> None:
    rewards = within_group([[0.0, 1.0], [0.9, 0.1]], [3.0, 1.0], min_spread=0.05)
    assert rewards == pytest.approx([0.25, 0.75])


def test_absolute_scores_are_weighted_means_of_raw_scores() -> None:
    assert absolute([[0.2], [0.6]], [1.0, 3.0]) == pytest.approx([0.5])


@given(scores=SCORES, power=st.sampled_from([2, 3]))
def test_ranks_do_not_change_under_a_monotone_map(scores: list[float], power: int) -> None:
    # Steps of 1/20 stay apart under both powers, so no tie appears; no spread is demanded.
    assert ranks([score**power for score in scores], min_spread=0.0) == ranks(scores, min_spread=0.0)


@given(TABLES, st.data())
def test_rewards_stay_in_bounds_and_follow_the_texts(table: list[list[float]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=len(table), max_size=len(table)))
    order = data.draw(st.permutations(range(len(table[0]))))
    for combine in (lambda t, w: within_group(t, w, min_spread=0.05), absolute):
        rewards = combine(table, weights)
        assert all(0.0 <= reward <= 1.0 for reward in rewards)
        shuffled = combine([[row[place] for place in order] for row in table], weights)
        assert shuffled == pytest.approx([rewards[place] for place in order])


@given(SCORES)
def test_ranks_keep_order_and_average_to_the_middle(scores: list[float]) -> None:
    found = ranks(scores, min_spread=0.0)
    assert sum(found) / len(found) == pytest.approx(0.5)
    for a, b in zip(scores, found, strict=True):
        for c, d in zip(scores, found, strict=True):
            assert (a < c) == (b < d)
