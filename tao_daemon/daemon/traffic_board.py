"""What the gateways last said: who is alive, what they have adopted, what is in flight, what they counted.

A gateway is alive while its lease runs; nothing waits for one that is gone. What a gone one counted in a rollout still
counts. Kept in memory only: gateways repeat their cumulative counters every second or so. Those are of their lifetime:
the first report of one that is new to this daemon, or was silent for long, only says where it stands.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tao_daemon.domain.rollout import Routes, StepCounts
from tao_daemon.domain.traffic import DURATION_EDGES, GatewayReport, Outcomes, SplitCounts

_WINDOW_SECONDS = 300.0
_SNAPSHOT_SECONDS = 5.0
_MIN_ANSWERS = 20
"""Answers in the window below which nothing is said about their duration."""
_SLOW_QUANTILE = 0.95
_REMEMBERED = 1000
"""Gateways that are gone and whose counts are kept, the latest ones."""

Monotonic = Callable[[], float]


@dataclass(slots=True)
class _Gateway:
    alive_until: float
    generation: int
    report: GatewayReport | None = None
    """None before its first: what is in flight on it is not known."""
    heard_at: float = 0.0
    """When it last reported."""
    stood_at: tuple[int, ...] = ()
    """Its answers when it was first heard, or heard again after a silence: none of them is news."""
    splits: dict[int, SplitCounts] = field(default_factory=dict)
    snapshots: deque[tuple[float, GatewayReport]] = field(default_factory=deque)


class TrafficBoard:
    """Belongs to the event loop's thread. Times are monotonic seconds."""

    def __init__(self, lease_seconds: float, now: Monotonic) -> None:
        self._lease_seconds = lease_seconds
        self._now = now
        self._gateways: dict[str, _Gateway] = {}
        self._heard = asyncio.Event()

    def hear(self, report: GatewayReport) -> bool:
        """A gateway's report renews its lease; whether it says for the first time that it adopted its generation."""
        before = self._gateways.get(report.gateway)
        advanced = before is None or before.report is None or before.report.generation < report.generation
        known = self._gateway(report.gateway, report.generation, self._lease_seconds)
        now = self._now()
        if known.report is None or now - known.heard_at >= _WINDOW_SECONDS:
            known.snapshots.clear()
            known.stood_at = report.durations
        known.report, known.heard_at = report, now
        known.splits |= report.splits
        if not known.snapshots or now - known.snapshots[-1][0] >= _SNAPSHOT_SECONDS:
            known.snapshots.append((now, report))
        _prune(known.snapshots, now - _WINDOW_SECONDS)
        self._wake()
        return advanced

    def hear_poll(self, gateway: str, generation: int, seconds: float) -> None:
        """A gateway asks for routes after `generation` and will wait `seconds`: it has adopted that one."""
        self._gateway(gateway, generation, seconds + self._lease_seconds)
        self._wake()

    def leave(self, gateway: str) -> None:
        """A gateway said that it ends."""
        if known := self._gateways.get(gateway):
            known.alive_until = self._now()
            self._wake()

    @property
    def live(self) -> Mapping[str, GatewayReport | None]:
        """Gateways whose lease runs, with their last report."""
        return {name: each.report for name, each in self._gateways.items() if each.alive_until > self._now()}

    def acknowledged(self, generation: int) -> bool:
        """Whether every live gateway uses routes of this generation or a later one."""
        return all(each.generation >= generation for each in self._living())

    @property
    def sighted(self) -> bool:
        """Whether some live gateway reports its counters."""
        return any(each.report for each in self._living())

    def behind(self, generation: int) -> tuple[str, ...]:
        """Live gateways that still use older routes, by name."""
        now = self._now()
        late = (
            name for name, each in self._gateways.items() if each.alive_until > now and each.generation < generation
        )
        return tuple(sorted(late))

    async def until_acknowledged(self, generation: int, seconds: float) -> bool:
        """Wait for `acknowledged`; False when the time is over first."""
        try:
            async with asyncio.timeout(seconds):
                while not self.acknowledged(generation):
                    heard = self._heard
                    # A lease may also run out in silence.
                    try:
                        async with asyncio.timeout(self._lease_seconds / 4):
                            await heard.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            return False
        return True

    def drained(self, adapter: str, routes: Routes) -> bool:
        """Whether no request can be on the adapter any more, nor get there, under these routes."""
        if adapter in routes.named:
            return False
        # A poll acknowledges too, but only a report from after the adoption says what is left in flight.
        reports = [each.report for each in self._living()]
        return all(
            report is not None and report.generation >= routes.generation and not report.in_flight.get(adapter)
            for report in reports
        )

    def counts(self, steps: Sequence[StepCounts]) -> tuple[SplitCounts, ...] | None:
        """What all gateways counted per step; None when no live one reports.

        A step begins with its generation and lasts until the next step's: a replica that drifts in between
        makes generations of its own.
        """
        if not self.sighted:
            return None
        starts = [step.generation for step in steps]
        found = [SplitCounts() for _ in steps]
        for each in self._gateways.values():
            for generation, counts in each.splits.items():
                place = bisect_left(starts, generation + 1) - 1
                if place >= 0:
                    found[place] += counts
        return tuple(found)

    def slow_seconds(self) -> float | None:
        """95th percentile of the answers' seconds over the last minutes, all versions; None with too few answers."""
        total = [0] * (len(DURATION_EDGES) + 1)
        for before, latest in self._recent():
            if len(latest.durations) == len(total):
                since = _since(before.durations, latest.durations)
                total = [sum_ + new for sum_, new in zip(total, since, strict=True)]
        return quantile_of(total, _SLOW_QUANTILE) if sum(total) >= _MIN_ANSWERS else None

    def outcomes(self) -> tuple[Outcomes, ...]:
        """What clients met within the last minutes, by kind of version, over all gateways."""
        requests: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for before, latest in self._recent():
            for kind, count in latest.requests.items():
                requests[kind] += count - before.requests.get(kind, 0)
                failed[kind] += latest.failed.get(kind, 0) - before.failed.get(kind, 0)
        return tuple(Outcomes(kind, requests[kind], failed[kind]) for kind in sorted(requests) if requests[kind])

    def answers(self) -> tuple[int, ...]:
        """Cumulative answers per bucket of DURATION_EDGES over every gateway, since this daemon knows it; () while none
        reports."""
        known = [
            _since(each.stood_at, each.report.durations)
            for each in self._gateways.values()
            if each.report and each.report.durations
        ]
        return tuple(map(sum, zip(*known, strict=False)))

    def arms(self) -> SplitCounts:
        """Everything counted in all rollouts so far, for metrics."""
        whole = SplitCounts()
        for each in self._gateways.values():
            for counts in each.splits.values():
                whole += counts
        return whole

    def _recent(self) -> Iterator[tuple[GatewayReport, GatewayReport]]:
        """Of every gateway heard within the last minutes: what it said before them, or first; and what it said last."""
        begin = self._now() - _WINDOW_SECONDS
        for each in self._gateways.values():
            if each.report is None or each.heard_at <= begin:
                continue
            _prune(each.snapshots, begin)
            yield each.snapshots[0][1], each.report

    def _living(self) -> list[_Gateway]:
        return [each for each in self._gateways.values() if each.alive_until > self._now()]

    def _gateway(self, name: str, generation: int, seconds: float) -> _Gateway:
        until = self._now() + seconds
        known = self._gateways.get(name)
        if known is None:
            if len(self._gateways) >= _REMEMBERED:
                gone = min(self._gateways, key=lambda each: self._gateways[each].alive_until)
                del self._gateways[gone]
            known = self._gateways[name] = _Gateway(until, generation)
        known.alive_until = max(known.alive_until, until) if known.report is None else until
        known.generation = max(known.generation, generation)
        return known

    def _wake(self) -> None:
        self._heard.set()
        self._heard = asyncio.Event()


def _prune(snapshots: deque[tuple[float, GatewayReport]], begin: float) -> None:
    """The last one before the window stays: what is in the window is told by the difference to it."""
    while len(snapshots) > 1 and snapshots[1][0] <= begin:
        snapshots.popleft()


def _since(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """What came between; nothing where that is not known."""
    if len(before) != len(after):
        return (0,) * len(after)
    return tuple(new - old for new, old in zip(after, before, strict=True))


def quantile_of(buckets: Sequence[int], quantile: float) -> float:
    """The upper edge of the bucket in which the quantile lies; the last edge for what is above all of them."""
    wanted, seen = quantile * sum(buckets), 0
    for edge, count in zip(DURATION_EDGES, buckets, strict=False):
        seen += count
        if seen >= wanted and count:
            return edge
    return DURATION_EDGES[-1]
