"""Metrics of the model servers: calls to them, and whether each is as it should be."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.metrics import OTHER, Label, counter, flag, gauge, histogram
from tao_daemon.domain.signals import UpstreamCalled

OPERATIONS = (
    "chat",
    "complete",
    "tokenize",
    "prompt_logprobs",
    "models",
    "load_adapter",
    "unload_adapter",
    "probe_loading",
    "touch",
    "health",
    "metrics",
    "version",
)
"""The calls that `clients.vllm` makes."""
_OPERATION = Label("operation", (*OPERATIONS, OTHER))
_REPLICA = Label("replica", one_for_each="host:port of serving.replicas and sampling.endpoint")
_FAILURES = ("timeout", "unreachable", "cancelled", "http_2xx", "http_3xx", "http_4xx", "http_5xx", OTHER)

REQUEST_SECONDS = histogram(
    "tao_serving_request_seconds",
    "seconds",
    "Calls of the daemon to model servers, by what was asked and whether it was answered.",
    "Sampling or loading is slow. Live requests do not come this way: see tao_gateway_request_duration_seconds.",
    _OPERATION,
    Label("outcome", ("ok", "failed")),
    buckets=(0.01, 0.05, 0.25, 1, 2.5, 10, 30, 120, 600),
)
REQUEST_FAILURES = counter(
    "tao_serving_request_failures",
    "calls",
    "Calls to model servers that gave nothing, by why.",
    "load_adapter with http_4xx: an adapter is refused. unreachable: a server is down, or its address is wrong.",
    _OPERATION,
    Label("outcome", _FAILURES),
)
REACHABLE = flag(
    "tao_serving_replica_reachable",
    "1 while the replica answered at the last look; one series for each replica that should be there.",
    "A model server is down.",
    _REPLICA,
)
READY = flag(
    "tao_serving_replica_ready",
    "1 while the replica may be asked for adapters: everything that routes name is loaded and verified.",
    "0 while reachable: it restarted or drifted and is being healed; it serves the base model alone.",
    _REPLICA,
)
ADAPTERS = gauge(
    "tao_serving_replica_adapters",
    "adapters",
    "Adapters that the replica lists.",
    "It nears the server's --max-loras: vLLM then evicts in silence.",
    _REPLICA,
)
UNREADY = gauge(
    "tao_rollout_unready_replicas",
    "replicas",
    "Replicas that the routes bar from adapters' requests.",
    "Above 0 for long: healing fails, `tao-daemon status` says why.",
)
DRIFTS = counter(
    "tao_serving_drifts",
    "replicas",
    "Times that a replica was found without what it should serve, and taken out.",
    "Servers restart, or somebody else unloads adapters.",
)
HEALS = counter(
    "tao_serving_heals",
    "replicas",
    "Times that a replica was healed and proven again.",
    "Fewer than drifts: one is still out.",
)
UNSERVABLE = counter(
    "tao_serving_unservable",
    "adapters",
    "Adapters that a replica could not be given any more: damaged files, or the server refuses them.",
    "Any increase: an undo may have nowhere to go but the base model.",
)
FAMILIES = (REQUEST_SECONDS, REQUEST_FAILURES, REACHABLE, READY, ADAPTERS, UNREADY, DRIFTS, HEALS, UNSERVABLE)


class ServingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = make_histogram(REQUEST_SECONDS, registry)
        self._failures = make_counter(REQUEST_FAILURES, registry)
        self._reachable = make_gauge(REACHABLE, registry)
        self._ready = make_gauge(READY, registry)
        self._adapters = make_gauge(ADAPTERS, registry)
        self._unready = make_gauge(UNREADY, registry)
        self._drifts = make_counter(DRIFTS, registry)
        self._heals = make_counter(HEALS, registry)
        self._unservable = make_counter(UNSERVABLE, registry)

    def called(self, signal: UpstreamCalled) -> None:
        operation = _OPERATION.known(signal.operation)
        answered = signal.outcome == "ok"
        self._seconds.labels(operation, "ok" if answered else "failed").observe(signal.seconds)
        if not answered:
            self._failures.labels(operation, REQUEST_FAILURES.labels[1].known(signal.outcome)).inc()

    def replica(self, address: str, *, reachable: bool, ready: bool, adapters: int) -> None:
        """How a replica was at the last look; `address` is its host:port."""
        self._reachable.labels(address).set(reachable)
        self._ready.labels(address).set(ready)
        self._adapters.labels(address).set(adapters)

    def unready(self, replicas: int) -> None:
        self._unready.set(replicas)

    def drifted(self) -> None:
        self._drifts.inc()

    def healed(self) -> None:
        self._heals.inc()

    def unservable(self) -> None:
        self._unservable.inc()
