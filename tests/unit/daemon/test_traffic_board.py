"""Leases, acknowledgements, drains and sums over gateways."""

from __future__ import annotations

import asyncio

import pytest

from tao_daemon.daemon.traffic_board import TrafficBoard, quantile_of
from tao_daemon.domain.rollout import Routes, StepCounts
from tao_daemon.domain.traffic import DURATION_EDGES, ArmCounts, GatewayReport, Outcomes, SplitCounts

BUCKETS = len(DURATION_EDGES) + 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> TrafficBoard:
    return TrafficBoard(10.0, clock)


def split(candidate: int, errors: int = 0) -> SplitCounts:
    return SplitCounts(candidate=ArmCounts(requests=candidate, conversations=candidate, errors=errors))


def test_nothing_is_known_without_a_gateway_and_nothing_waits_for_one(board: TrafficBoard) -> None:
    assert board.counts([StepCounts(1, 0.1)]) is None
    assert board.slow_seconds() is None
    assert board.acknowledged(99)
    assert board.drained("a", Routes(1, None))


def test_a_flip_waits_for_every_lease_and_for_no_dead_gateway(board: TrafficBoard, clock: Clock) -> None:
    board.hear(GatewayReport("g1", 4))
    board.hear(GatewayReport("g2", 3))
    assert not board.acknowledged(4)
    clock.now = 9.0
    board.hear(GatewayReport("g1", 4))
    clock.now = 11.0
    assert board.acknowledged(4), "the lease of g2 ran out"


def test_who_lives_and_has_older_routes_is_named(board: TrafficBoard, clock: Clock) -> None:
    board.hear_poll("g0", 4, 1.0)
    clock.now = 5.0
    for name, generation in (("g3", 4), ("g1", 3), ("g2", 5)):
        board.hear(GatewayReport(name, generation))
    assert board.behind(5) == ("g0", "g1", "g3")
    clock.now = 12.0
    assert board.behind(5) == ("g1", "g3")
    assert board.behind(3) == ()


def test_traffic_is_sighted_while_somebody_reports(board: TrafficBoard, clock: Clock) -> None:
    board.hear_poll("g1", 4, 1.0)
    assert not board.sighted
    board.hear(GatewayReport("g1", 4))
    assert board.sighted
    clock.now = 20.0
    assert not board.sighted


async def test_an_acknowledgement_wakes_who_waits(board: TrafficBoard) -> None:
    board.hear(GatewayReport("g1", 3))
    waiting = asyncio.create_task(board.until_acknowledged(4, 5.0))
    await asyncio.sleep(0)
    board.hear(GatewayReport("g1", 4))
    assert await asyncio.wait_for(waiting, 1.0)
    assert not await board.until_acknowledged(5, 0.01)


def test_an_adapter_is_drained_when_nobody_has_it_in_flight_or_may_still_get_there(board: TrafficBoard) -> None:
    left = Routes(5, "b", previous=None)
    board.hear(GatewayReport("g1", 5, {"a": 1, "b": 9}))
    assert not board.drained("a", left), "in flight"
    board.hear(GatewayReport("g1", 4, {}))
    board.hear(GatewayReport("g2", 4, {}))
    assert not board.drained("a", left), "g2 has not adopted the routes"
    board.hear(GatewayReport("g1", 5, {"a": 0}))
    board.hear(GatewayReport("g2", 5, {}))
    assert board.drained("a", left)
    assert not board.drained("b", left), "the routes name it"


def test_a_poll_acknowledges_but_does_not_say_what_is_left_in_flight(board: TrafficBoard) -> None:
    left = Routes(5, "b")
    board.hear(GatewayReport("g1", 4, {}))
    board.hear_poll("g1", 5, 30.0)
    assert board.acknowledged(5)
    assert not board.drained("a", left), "requests may have begun after the report, and before the poll"
    board.hear(GatewayReport("g1", 5, {}))
    assert board.drained("a", left)


def test_a_gateway_without_a_token_is_seen_and_never_drained(board: TrafficBoard) -> None:
    board.hear_poll("g1", 5, 30.0)
    assert board.live == {"g1": None}
    assert board.acknowledged(5)
    assert not board.acknowledged(6)
    assert not board.drained("a", Routes(5, None))
    assert board.counts([StepCounts(1, 0.1)]) is None


def test_steps_sum_over_gateways_generations_and_the_dead(board: TrafficBoard, clock: Clock) -> None:
    board.hear(GatewayReport("g1", 7, splits={2: split(1), 3: split(10), 4: split(100), 7: split(1000)}))
    clock.now = 60.0
    board.hear(GatewayReport("g2", 7, splits={3: split(20, errors=2)}))
    found = board.counts([StepCounts(3, 0.1), StepCounts(6, 0.5)])
    assert found is not None
    assert [each.candidate.conversations for each in found] == [130, 1000]
    assert found[0].candidate.errors == 2


def test_a_generation_that_a_gateway_no_longer_repeats_still_counts(board: TrafficBoard) -> None:
    board.hear(GatewayReport("g1", 3, splits={3: split(10)}))
    board.hear(GatewayReport("g1", 20, splits={20: split(5)}))
    found = board.counts([StepCounts(3, 0.1), StepCounts(20, 0.5)])
    assert found is not None
    assert [each.candidate.conversations for each in found] == [10, 5]


def test_durations_are_those_of_the_last_minutes(board: TrafficBoard, clock: Clock) -> None:
    def report(fast: int, slow: int) -> GatewayReport:
        buckets = [0] * BUCKETS
        buckets[10], buckets[60] = fast, slow
        return GatewayReport("g1", 1, durations=tuple(buckets))

    board.hear(report(0, 1000))
    clock.now = 400.0
    board.hear(report(0, 1000))
    clock.now = 410.0
    board.hear(report(100, 1000))
    assert board.slow_seconds() == DURATION_EDGES[10], "the slow ones are long past"


@pytest.mark.parametrize("quantile", [0.5, 0.95, 1.0])
def test_quantiles_lie_on_edges(quantile: float) -> None:
    buckets = [0] * BUCKETS
    buckets[5] = 90
    buckets[50] = 10
    assert quantile_of(buckets, quantile) == DURATION_EDGES[5 if quantile == 0.5 else 50]


def test_what_clients_met_is_told_for_the_last_minutes_by_kind(board: TrafficBoard, clock: Clock) -> None:
    def hear(at: float, name: str, requests: int, failed: int) -> None:
        clock.now = at
        board.hear(GatewayReport(name, 1, requests={"adapter": requests}, failed={"adapter": failed}))

    assert board.outcomes() == ()
    hear(0.0, "g1", 1000, 500)
    assert board.outcomes() == (), "its lifetime's totals are not the last minutes'"
    hear(10.0, "g1", 1100, 501)
    hear(10.0, "g2", 50, 2)
    assert board.outcomes() == (Outcomes("adapter", 100, 1),)
    hear(20.0, "g2", 100, 3)
    assert board.outcomes() == (Outcomes("adapter", 150, 2),)
    hear(200.0, "g1", 1150, 501)
    hear(315.0, "g1", 1200, 501)
    assert board.outcomes() == (Outcomes("adapter", 150, 1),), "what g1 said 10 seconds in is the measure now"


def test_a_dead_gateways_last_minutes_pass(board: TrafficBoard, clock: Clock) -> None:
    for at, slow in ((0.0, 0), (10.0, 100)):
        clock.now = at
        buckets = [0] * BUCKETS
        buckets[60] = slow
        board.hear(GatewayReport("g1", 1, durations=tuple(buckets), requests={"base": slow}, failed={"base": slow}))
    assert board.outcomes() == (Outcomes("base", 100, 100),)
    assert board.slow_seconds() == DURATION_EDGES[60]
    clock.now = 309.0
    assert board.outcomes() == (Outcomes("base", 100, 100),)
    clock.now = 310.0
    assert board.outcomes() == ()
    assert board.slow_seconds() is None
    assert sum(board.answers()) == 100, "counters never go back"


def test_after_a_long_silence_a_gateway_begins_anew(board: TrafficBoard, clock: Clock) -> None:
    def hear(at: float, slow: int) -> None:
        clock.now = at
        buckets = [0] * BUCKETS
        buckets[60] = slow
        board.hear(GatewayReport("g1", 1, durations=tuple(buckets), requests={"base": slow}))

    hear(0.0, 0)
    hear(10.0, 10)
    hear(3600.0, 5000)
    assert board.outcomes() == (), "nobody knows when in that hour they were"
    assert sum(board.answers()) == 0
    hear(3610.0, 5030)
    assert board.outcomes() == (Outcomes("base", 30, 0),)
    assert board.slow_seconds() == DURATION_EDGES[60]
    assert sum(board.answers()) == 30


def test_answers_of_before_this_daemon_are_not_told(board: TrafficBoard, clock: Clock) -> None:
    def hear(name: str, slow: int) -> None:
        buckets = [0] * BUCKETS
        buckets[60] = slow
        board.hear(GatewayReport(name, 1, durations=tuple(buckets)))

    assert board.answers() == ()
    hear("g1", 1000)
    assert sum(board.answers()) == 0
    hear("g1", 1004)
    hear("g2", 500)
    assert sum(board.answers()) == 4
    assert board.slow_seconds() is None, "too few since"
