"""What a gateway counts. vLLM has no errors or latencies per adapter, so they are measured here.

Plain numbers while requests run, Prometheus families when asked; what there is to count is declared in
`domain.gateway_metrics`. Adapters' names are unbounded and appear on the
`_info` metric alone; everything else says candidate, adapter, previous or base.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tao_daemon.clients.process_metrics import ProcessMetrics
from tao_daemon.clients.prometheus import exposition, new_registry
from tao_daemon.domain import gateway_metrics as declared
from tao_daemon.domain.metrics import Family
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import DURATION_EDGES
from tao_daemon.gateway.routing import Kind

_FAILED = ("5xx", "cut")
"""How a request ends that its client calls failed."""


class Histogram:
    """Observations per bucket; the last bucket is for what lies above every edge."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Cumulative counts by upper edge, as Prometheus wants them."""
        reached = 0
        for edge, count in zip([*map(float, self.edges), float("inf")], self.counts, strict=True):
            reached += count
            yield ("+Inf" if edge == float("inf") else str(edge)), reached


def _seconds() -> Histogram:
    return Histogram(declared.DURATION.buckets)


class Meters(Collector):
    """One gateway's numbers. Written by one event loop; the captured ones by the capture's thread."""

    def __init__(self, version: str, clock: Clock) -> None:
        self._clock = clock
        self.requests: Counter[tuple[str, ...]] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(_seconds)
        self.first_bytes: defaultdict[str, Histogram] = defaultdict(_seconds)
        self.tokens: Counter[str] = Counter()
        self.truncated: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.unreachable = 0
        self.in_flight = 0
        self.by_model: Counter[str] = Counter()
        """Requests being answered now, by the model's name on the servers."""
        self.completed = Histogram(DURATION_EDGES)
        """Seconds of answers that came back whole and well, whatever the version: what "slow" is measured against."""
        self.captured = 0
        self.captured_at = 0.0
        """Unix second of the latest acknowledgement."""
        self.capture_dropped: Counter[str] = Counter()
        self.capture_failed = 0
        self.capture_waiting = 0
        self.reports_failed = 0
        self.reported_at = 0.0
        """Unix second of the latest report that was taken."""
        self._routes = Routes(0, None)
        self._connected = False
        self._registry = new_registry()
        self._registry.register(self)
        self.process = ProcessMetrics(self._registry, version=version, component="gateway")

    def ended(self, kind: Kind | None, status: str, seconds: float) -> None:
        """A request ended: `status` is a class such as 2xx, `cut` after the first byte, or `cancelled`."""
        name = kind or declared.REFUSED
        self.requests[name, status] += 1
        self.durations[name].observe(seconds)
        if status == "2xx":
            self.completed.observe(seconds)

    def outcomes(self) -> tuple[dict[str, int], dict[str, int]]:
        """Requests that ended, and those of them that failed, by kind."""
        every: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for (kind, status), count in self.requests.items():
            every[kind] += count
            failed[kind] += count if status in _FAILED else 0
        return dict(every), dict(failed)

    def answered(self, kind: Kind, tokens: int, truncated: bool) -> None:
        """What the reader of an answer found in it."""
        self.tokens[kind] += tokens
        self.truncated[kind] += truncated

    def moved(self, left: str | None, to: str | None) -> None:
        """A request stops asking one model and asks another."""
        if left is not None:
            self.by_model[left] -= 1
            if not self.by_model[left]:
                del self.by_model[left]
        if to is not None:
            self.by_model[to] += 1

    def acknowledged(self, prompts: int) -> None:
        """Kafka has them."""
        if prompts:
            self.captured += prompts
            self.captured_at = self._clock()

    def reported(self, taken: bool) -> None:
        """The daemon took a report, or did not."""
        if taken:
            self.reported_at = self._clock()
        else:
            self.reports_failed += 1

    def routes(self, routes: Routes, connected: bool) -> None:
        self._routes, self._connected = routes, connected

    def exposition(self) -> bytes:
        return exposition(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at every scrape."""
        yield from self._traffic()
        yield from self._capture()
        yield from self._control()

    def _traffic(self) -> Iterator[Metric]:
        yield _counter(declared.REQUESTS, self.requests)
        yield _histogram(declared.DURATION, self.durations)
        yield _histogram(declared.FIRST_TOKEN, self.first_bytes)
        yield _counter(declared.TOKENS, _by_kind(self.tokens))
        yield _counter(declared.TRUNCATED, _by_kind(self.truncated))
        yield _counter(declared.FALLBACKS, _by_kind(self.fallbacks))
        yield _counter(declared.UNREACHABLE, {(): self.unreachable})
        yield _gauge(declared.IN_FLIGHT, self.in_flight)

    def _capture(self) -> Iterator[Metric]:
        yield _counter(declared.CAPTURED, {(): self.captured})
        yield _counter(declared.CAPTURE_DROPPED, {(why,): count for why, count in self.capture_dropped.items()})
        yield _counter(declared.CAPTURE_FAILED, {(): self.capture_failed})
        yield _gauge(declared.CAPTURE_WAITING, self.capture_waiting)
        yield _gauge(declared.LAST_CAPTURE, self.captured_at)

    def _control(self) -> Iterator[Metric]:
        routes = self._routes
        yield _gauge(declared.GENERATION, routes.generation)
        yield _gauge(declared.FRACTION, routes.fraction if routes.candidate else 0.0)
        yield _gauge(declared.CONNECTED, float(self._connected))
        yield _counter(declared.FAILED_REPORTS, {(): self.reports_failed})
        yield _gauge(declared.LAST_REPORT, self.reported_at)
        names = {name: getattr(routes, name) or "" for name in declared.ROUTES.label_names}
        yield InfoMetricFamily(declared.ROUTES.base_name, declared.ROUTES.help, names)


def _by_kind(counts: Counter[str]) -> dict[tuple[str, ...], float]:
    return {(kind,): count for kind, count in counts.items()}


def _counter(family: Family, counts: Mapping[tuple[str, ...], float]) -> Metric:
    """With every series that there can be, so that each is there before the first of its kind."""
    made = CounterMetricFamily(family.base_name, family.help, labels=family.label_names)
    for key in sorted({*family.known_series(), *counts}):
        made.add_metric(key, counts.get(key, 0))
    return made


def _gauge(family: Family, value: float) -> Metric:
    return GaugeMetricFamily(family.name, family.help, value)


def _histogram(family: Family, by_kind: Mapping[str, Histogram]) -> Metric:
    made = HistogramMetricFamily(family.name, family.help, labels=family.label_names)
    for key in family.known_series():
        kept = by_kind.get(key[0]) or Histogram(family.buckets)
        made.add_metric(key, list(kept.buckets()), kept.total)
    return made
