"""The pacer on histograms, and the turns it gives."""

from __future__ import annotations

import asyncio

import pytest

from tao_daemon.domain.signals import SamplingPaced, Signal
from tao_daemon.domain.traffic import DURATION_EDGES
from tao_daemon.sampling.pace import LivePace
from tao_daemon.sampling.pacing import (
    INTERVAL_SECONDS,
    LEARNING_SECONDS,
    LONGEST_LEARNING_SECONDS,
    QUIET_SECONDS,
    Look,
    Pacer,
)

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
            self.look(int(busy))

    def look(self, in_flight: int, waiting: int = 0) -> None:
        self.pacer.look(Look(self.now, tuple(self.answers)), in_flight=in_flight, waiting=waiting)


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


def restarted(live: Live, bucket: int = USUAL, count: int = 10) -> None:
    """The daemon was restarted in the middle of sampling: requests wait from its first look on."""
    live.pacer.look(Look(0.0, ()), in_flight=0, waiting=100)
    assert live.pacer.limit == 1, "whether gateways report is not known yet"
    for _ in range(3):
        live.now += INTERVAL_SECONDS
        live.answers[bucket] += count
        live.look(in_flight=live.pacer.limit, waiting=100)


def held(live: Live, intervals: int, bucket: int = USUAL, count: int = 10) -> int:
    """Go on with nothing in flight for as long as it is held; how many intervals that was."""
    for at in range(intervals):
        if live.pacer.limit:
            return at
        live.now += INTERVAL_SECONDS
        live.answers[bucket] += count
        live.look(in_flight=0, waiting=100)
    return intervals


def test_after_a_restart_in_the_middle_of_sampling_it_holds_to_learn_what_is_usual(live: Live) -> None:
    restarted(live)
    assert live.pacer.limit == 0
    assert "learn" in live.pacer.held
    assert held(live, 100) < 60 / INTERVAL_SECONDS
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])
    live.go_on(20, FINE, busy=True)
    assert (live.pacer.limit, live.pacer.held) == (8, "")
    live.go_on(4, SLOW, busy=True)
    assert live.pacer.limit == 0
    assert "slow" in live.pacer.held


def test_too_few_answers_do_not_hold_it_beyond_a_minute_and_what_they_taught_stays(live: Live) -> None:
    restarted(live, count=1)
    assert held(live, 100, count=1) * INTERVAL_SECONDS <= LEARNING_SECONDS
    assert (live.pacer.limit, live.pacer.threshold) == (8, None)
    holds = 0
    for _ in range(1_000):
        live.go_on(1, SLOW, busy=True, count=1)
        if not live.pacer.limit:
            holds += 1
            assert held(live, 100, count=1) * INTERVAL_SECONDS <= LEARNING_SECONDS
        if live.pacer.threshold:
            break
    assert 3 <= holds <= 6
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL]), "of held time alone"


def test_live_answers_that_begin_in_the_middle_of_sampling_hold_it_until_it_knows_their_usual(live: Live) -> None:
    live.go_on(20, busy=True, count=0)
    assert live.pacer.limit == 8
    live.go_on(1, SLOW, busy=True)
    assert live.pacer.limit == 0
    live.go_on(10, SLOW, busy=True)
    assert live.pacer.threshold is None, "what was in flight is no measure"
    held(live, 1, SLOW)
    held(live, 100, USUAL)
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])


def test_what_never_ends_in_flight_does_not_hold_it_for_ever(live: Live) -> None:
    live.go_on(20, busy=True, count=0)
    live.go_on(int(LONGEST_LEARNING_SECONDS / INTERVAL_SECONDS), SLOW, busy=True)
    assert live.pacer.limit == 0
    live.go_on(1, SLOW, busy=True)
    assert live.pacer.limit == 8


def test_the_first_report_is_no_interval_to_learn_from(live: Live) -> None:
    live.pacer.look(Look(0.0, ()), in_flight=0, waiting=0)
    live.go_on(1, SLOW, busy=False, count=1_000)
    live.go_on(10, USUAL, busy=False)
    live.go_on(1, USUAL, busy=True)
    assert live.pacer.threshold == pytest.approx(2 * DURATION_EDGES[USUAL])


async def test_it_says_why_requests_wait() -> None:
    told: list[Signal] = []
    pacer = Pacer(slowdown=2.0, most=1)
    answers = [0] * BUCKETS
    now = asyncio.get_running_loop().time()
    pacer.look(Look(now - 2.0, tuple(answers)), in_flight=0, waiting=0)
    answers[USUAL] = 1
    pace = LivePace(pacer, lambda: tuple(answers), told.append)
    pacer.look(Look(now - 1.0, tuple(answers)), in_flight=0, waiting=0)
    waiter = asyncio.create_task(pace.turn().__aenter__())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pace.run()
    waiter.cancel()
    assert told == [SamplingPaced(limit=0, in_flight=0, waiting=1, slowdown=None, held=pacer.held)]
    assert "learn" in pacer.held


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
