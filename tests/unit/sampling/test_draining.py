"""When to look at a queue again, and what may enter until then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.sampling.draining import (
    LONGEST_PAUSE_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    Drain,
    allowance,
    pause_between_looks,
    pause_until_room,
)


def test_the_rate_is_what_left_over_a_second_or_more() -> None:
    drain = Drain()
    for at, left in [(10.0, 5.0), (10.4, 20.0), (10.8, -2.0), (11.5, 12.0)]:
        drain.saw(at, left)
    assert drain.per_second == pytest.approx(30.0 / 1.5)
    drain.saw(12.0, 100.0)
    assert drain.per_second == pytest.approx(20.0), "half a second says too little"
    drain.saw(13.0, -200.0)
    assert drain.per_second == 0.0


def test_a_queue_that_drains_is_looked_at_when_half_of_the_excess_is_gone() -> None:
    assert pause_until_room(10, 10.0, 0.25) == pytest.approx(0.5)
    assert pause_until_room(10, 0.0, 0.25) == 0.5
    assert pause_until_room(10_000, 1.0, 0.25) == LONGEST_PAUSE_SECONDS
    assert pause_until_room(1, 1000.0, 0.25) == SHORTEST_PAUSE_SECONDS


def test_looks_take_at_most_a_fifth_of_the_servers_time() -> None:
    assert pause_between_looks(0.001) == SHORTEST_PAUSE_SECONDS
    assert 0.1 / (0.1 + pause_between_looks(0.1)) == pytest.approx(0.2)


@given(st.integers(0, 100), st.floats(0.0, 1000.0), st.floats(0.0, 1.0))
def test_what_may_enter_is_gone_to_the_limit_by_the_next_look(limit: int, rate: float, look: float) -> None:
    left = allowance(limit, rate, look) - rate * (pause_between_looks(look) + look)
    assert left == pytest.approx(limit, abs=1e-6)
