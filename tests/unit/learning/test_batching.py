"""Micro-batches: every pack once, never more padded tokens than allowed, unless one pack alone is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.learning.batching import micro_batches

SIZES = st.tuples(st.integers(1, 50), st.integers(0, 50))


@given(st.lists(SIZES, max_size=30), st.integers(1, 200))
def test_every_pack_once_and_within_the_limit(sizes: list[tuple[int, int]], limit: int) -> None:
    batches = micro_batches(sizes, limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in batches:
        width = max(sizes[index][0] for index in batch) + max(sizes[index][1] for index in batch)
        assert len(batch) == 1 or len(batch) * width <= limit


def test_similar_lengths_lie_side_by_side_and_the_longest_come_first() -> None:
    assert micro_batches([(8, 2), (90, 10), (9, 3), (80, 10), (9, 2)], 200) == [[1, 3], [2, 4, 0]]


def test_prompts_and_completions_are_padded_apart() -> None:
    assert micro_batches([(90, 10), (10, 90)], 200) == [[0], [1]]


@given(SIZES, st.integers(1, 30))
def test_without_padding_no_fewer_batches_would_do(size: tuple[int, int], count: int) -> None:
    assert len(micro_batches([size] * count, 4 * sum(size))) == -(-count // 4)
