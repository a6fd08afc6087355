"""Which adapters' files may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.registry.retention import expendable

NAMES = tuple(f"r{number:06d}-aa" for number in range(1, 8))


def test_the_oldest_that_nothing_needs_go() -> None:
    assert expendable(NAMES, needed={NAMES[1], "r000099-gone"}, newest=3) == (NAMES[0], NAMES[2], NAMES[3])


def test_fewer_than_the_newest_all_stay() -> None:
    assert expendable(NAMES, needed=(), newest=7) == ()
    assert expendable(NAMES[:2], needed=(), newest=7) == ()
    assert expendable((), needed=(), newest=1) == ()


def test_keeping_none_is_refused_instead_of_deleting_all() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        expendable(NAMES, needed=(), newest=0)


@given(st.sets(st.sampled_from(NAMES)), st.integers(1, 9))
def test_what_goes_is_neither_needed_nor_new_and_the_rest_stays(needed: set[str], newest: int) -> None:
    gone = set(expendable(NAMES, needed=needed, newest=newest))
    assert gone == set(NAMES) - needed - set(NAMES[-newest:])
