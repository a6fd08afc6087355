"""What a gateway counts. vLLM has no errors or latencies per adapter, so they are measured here.

Plain numbers while requests run, Prometheus families when asked. Adapters' names are unbounded and appear on the
`_info` metric alone; everything else says candidate, adapter, previous or base.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import DURATION_EDGES
from tao_daemon.gateway.routing import Kind

REFUSED = "none"
"""The `kind` of a request that was bound to no version."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


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
    return Histogram(_SECONDS)


class Meters(Collector):
    """One gateway's numbers. Written by one event loop; the captured ones by the capture's thread."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
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
        self.capture_dropped: Counter[str] = Counter()
        self.capture_failed = 0
        self.capture_waiting = 0
        self.reports_failed = 0
        self._routes = Routes(0, None)
        self._connected = False
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def ended(self, kind: Kind | None, status: str, seconds: float) -> None:
        """A request ended: `status` is a class such as 2xx, `cut` after the first byte, or `cancelled`."""
        name = kind or REFUSED
        self.requests[name, status] += 1
        self.durations[name].observe(seconds)
        if status == "2xx":
            self.completed.observe(seconds)

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

    def routes(self, routes: Routes, connected: bool) -> None:
        self._routes, self._connected = routes, connected

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """Called by the registry at every scrape."""
        yield from self._traffic()
        yield from self._capture()
        yield from self._control()

    def _traffic(self) -> Iterator[Family]:
        yield _counter(
            "tao_gateway_requests",
            "Requests by the kind of version that answered (or should have) and by how they ended.",
            ("kind", "status"),
            self.requests.items(),
        )
        yield _histogram(
            "tao_gateway_request_duration_seconds",
            "From the request's arrival to the last byte of its answer.",
            self.durations,
        )
        yield _histogram(
            "tao_gateway_time_to_first_token_seconds",
            "From the request's arrival to the first event of a streamed answer.",
            self.first_bytes,
        )
        yield _counter(
            "tao_gateway_completion_tokens",
            "Completion tokens: by the answer's usage where it carries one, else one per event of a stream.",
            ("kind",),
            _by_kind(self.tokens),
        )
        yield _counter(
            "tao_gateway_truncated_answers",
            "Answers cut off by their length limit (finish_reason length).",
            ("kind",),
            _by_kind(self.truncated),
        )
        yield _counter(
            "tao_gateway_fallbacks",
            "Requests that no reachable replica could answer with a version of this kind.",
            ("kind",),
            _by_kind(self.fallbacks),
        )
        unreachable = "Attempts at a replica that gave no answer."
        yield CounterMetricFamily("tao_gateway_unreachable_replicas", unreachable, self.unreachable)
        yield GaugeMetricFamily("tao_gateway_in_flight_requests", "Requests being answered now.", self.in_flight)

    def _capture(self) -> Iterator[Family]:
        sent = "Prompts that Kafka has acknowledged."
        yield CounterMetricFamily("tao_gateway_captured_prompts", sent, self.captured)
        yield _counter(
            "tao_gateway_capture_dropped_prompts",
            "Prompts not captured: the queue was full, or larger than buffer.max_prompt_bytes.",
            ("reason",),
            [((reason,), self.capture_dropped[reason]) for reason in ("full", "too_large")],
        )
        failed = "Prompts that were given to Kafka and not acknowledged."
        yield CounterMetricFamily("tao_gateway_capture_failed_prompts", failed, self.capture_failed)
        waiting = "Prompts that wait for Kafka."
        yield GaugeMetricFamily("tao_gateway_capture_queue_prompts", waiting, self.capture_waiting)

    def _control(self) -> Iterator[Family]:
        routes = self._routes
        generation = "Generation of the routes in use."
        yield GaugeMetricFamily("tao_gateway_routes_generation", generation, routes.generation)
        share = "The share of conversations that the candidate answers."
        yield GaugeMetricFamily("tao_gateway_candidate_fraction", share, routes.fraction if routes.candidate else 0.0)
        connected = "1 while the daemon answers; 0 serves on with the last routes."
        yield GaugeMetricFamily("tao_gateway_daemon_connected", connected, float(self._connected))
        failed = "Reports that the daemon did not take."
        yield CounterMetricFamily("tao_gateway_failed_reports", failed, self.reports_failed)
        names = {name: getattr(routes, name) or "" for name in ("adapter", "previous", "candidate")}
        yield InfoMetricFamily("tao_gateway_routes", "The adapters in use.", names)


def _by_kind(counts: Counter[str]) -> Iterable[tuple[tuple[str], float]]:
    """Every kind, so that the series are there before the first of each."""
    return [((kind,), counts[kind]) for kind in Kind]


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values):
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, by_kind: dict[str, Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=("kind",))
    for kind, histogram in sorted(by_kind.items()):
        family.add_metric((kind,), list(histogram.buckets()), histogram.total)
    return family
