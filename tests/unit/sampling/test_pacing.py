"""The pacer on histograms, and the turns it gives."""

from __future__ import annotations

import asyncio

import pytest

from tao_daemon.domain.signals import SamplingPaced, Signal
from tao_daemon.domain.traffic import DURATION_EDGES
from tao_daemon.sampling.pace import LivePace
from tao_daemon.sampling.pacing import INTERVAL_SECONDS, QUIET_SECONDS, Look, Pacer

BUCKETS = len(DURATION_EDGES) + 1
USUAL, FINE, SLOW = 40, 42, 60
"""Buckets: some 0.27 s, 0.35 s and 4.4 s."""


class Live:
    """Live traffic whose answers fall into one bucket per interval."""

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.now = 0.0
        self.answers = [0] * BUCKETS

    def go_on(self, intervals: int, bucket: int = USUAL, *, busy: bool, count: int = 10) -> None:
        for _ in range(intervals):
            self.now += INTERVAL_SECONDS
            self.answers[bucket] += count
            self.pacer.look(Look(self.now, tuple(self.answers)), busy=busy)


@pytest.fixture
def live() -> Live:
    return Live(Pacer(slowdown=2.0, most=8))


def test_without_live_traffic_nothing_is_held_back(live: Live) -> None:
    live.go_on(20, busy=True, count=0)
    assert (live.pacer.limit, live.pacer.threshold) == (8, None)


def test_it_begins_with_one_and_grows_while_live_answers_stay_usual(live: Live) -> None:
    live.go_on(20, busy=False)
    assert live.pacer.limit == 1, "what is in flight before the first look cannot be taken back"
    live.go_on(1, busy=True)
    assert live.pacer.limit <= 2
    live.go_on(20, FINE, busy=True)
    assert live.pacer.limit == 8
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])


def test_it_says_how_much_slower_live_answers_are_than_usual(live: Live) -> None:
    live.go_on(20, busy=False)
    assert live.pacer.slowdown is None, "nothing samples"
    live.go_on(1, busy=True)
    live.go_on(10, FINE, busy=True)
    assert live.pacer.slowdown == pytest.approx(DURATION_EDGES[FINE] / DURATION_EDGES[USUAL])
    live.go_on(1, SLOW, busy=True)
    assert live.pacer.slowdown == pytest.approx(DURATION_EDGES[SLOW] / DURATION_EDGES[USUAL])
    live.go_on(30, busy=False)
    assert live.pacer.slowdown is None


def test_slow_live_answers_halve_it_down_to_nothing(live: Live) -> None:
    live.go_on(20, busy=False)
    live.go_on(20, busy=True)
    limits = []
    for _ in range(4):
        live.go_on(1, SLOW, busy=True)
        limits.append(live.pacer.limit)
    assert limits == [4, 2, 1, 0]
    for hold in (2, 4, 8):
        live.go_on(hold - 1, USUAL, busy=True)
        assert live.pacer.limit == 0
        live.go_on(1, USUAL, busy=True)
        assert live.pacer.limit == 1, "it tries again, each time after twice as long"
        live.go_on(1, SLOW, busy=True)
        assert live.pacer.limit == 0


def test_one_slow_answer_in_a_hundred_is_what_a_99th_percentile_allows(live: Live) -> None:
    live.go_on(20, busy=False)
    live.go_on(20, busy=True, count=200)
    live.go_on(1, SLOW, busy=True, count=1)
    assert live.pacer.limit == 8


def test_what_is_slow_while_it_samples_never_becomes_usual(live: Live) -> None:
    live.go_on(20, busy=False)
    live.go_on(1, busy=True)
    threshold = live.pacer.threshold
    live.go_on(50, SLOW, busy=True)
    assert live.pacer.threshold == threshold
    live.go_on(int(QUIET_SECONDS / INTERVAL_SECONDS) + 1, busy=False)
    assert live.pacer.threshold is None


def test_from_round_to_round_the_measure_stays_that_of_quiet_time(live: Live) -> None:
    live.go_on(20, busy=False)
    for _ in range(4):
        live.go_on(1, busy=True)
        assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])
        live.go_on(50, FINE, busy=True)
        live.go_on(int(QUIET_SECONDS / INTERVAL_SECONDS), FINE, busy=False)
        live.go_on(10, USUAL, busy=False)


def test_a_long_round_does_not_make_forget_what_is_usual(live: Live) -> None:
    live.go_on(20, busy=False)
    live.go_on(1_000, FINE, busy=True)
    live.go_on(int(QUIET_SECONDS / INTERVAL_SECONDS) + 1, busy=False, count=0)
    assert live.pacer.limit == 1, "still known"
    live.go_on(1, busy=True)
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])


def test_what_was_usual_long_ago_gives_way_to_newer_quiet_time(live: Live) -> None:
    live.go_on(120, SLOW, busy=False)
    live.go_on(120, USUAL, busy=False)
    live.go_on(1, busy=True)
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])


async def test_turns_come_in_order_and_no_more_than_allowed() -> None:
    pacer = Pacer(slowdown=2.0, most=2)
    pace = LivePace(pacer, lambda: ())
    order: list[int] = []
    inside = 0

    async def request(number: int) -> None:
        nonlocal inside
        async with pace.turn():
            inside += 1
            assert inside <= 2
            order.append(number)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(request(number) for number in range(20)))
    assert order == list(range(20))


async def test_a_cancelled_waiter_takes_no_turn_with_it() -> None:
    pace = LivePace(Pacer(slowdown=2.0, most=1), lambda: ())
    release = asyncio.Event()

    async def hold() -> None:
        async with pace.turn():
            await release.wait()

    holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    release.set()
    await holder
    async with asyncio.timeout(20), pace.turn():
        pass


async def test_a_cancelled_waiter_waits_no_more() -> None:
    told: list[Signal] = []
    pace = LivePace(Pacer(slowdown=2.0, most=1), lambda: (), told.append)

    async def wait() -> None:
        async with pace.turn():
            await asyncio.Event().wait()

    waiters = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    for waiter in waiters[1:]:
        waiter.cancel()
    await asyncio.gather(*waiters[1:], return_exceptions=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pace.run()
    assert told == [SamplingPaced(limit=1, in_flight=1, waiting=0, slowdown=None)]
    waiters[0].cancel()
