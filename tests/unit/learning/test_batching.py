"""Micro-batches: every pack once, never more padded tokens than allowed, unless one pack alone is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.learning.batching import micro_batches


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_every_pack_once_and_within_the_limit(lengths: list[int], limit: int) -> None:
    batches = micro_batches(lengths, limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= limit


def test_similar_lengths_lie_side_by_side_and_the_longest_come_first() -> None:
    assert micro_batches([10, 100, 12, 90, 11], 200) == [[1, 3], [2, 4, 0]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_without_padding_no_fewer_batches_would_do_for_equal_lengths(lengths: list[int]) -> None:
    equal = [lengths[0]] * len(lengths)
    assert len(micro_batches(equal, 4 * lengths[0])) == -(-len(lengths) // 4)
