"""What a gateway counts. vLLM has no errors or latencies per adapter, so they are measured here.

Adapters' names are unbounded and appear on the `_info` metric alone; everything else says base, adapter or previous.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.routing import Kind

REFUSED = "none"
"""The `kind` of a request that was bound to no version."""
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Meters:
    """One gateway's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tao_gateway_requests",
            "Requests by the kind of version that answered (or should have) and by how they ended.",
            ["kind", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tao_gateway_request_duration_seconds",
            "From the request's arrival to the last byte of its answer.",
            ["kind"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._fallbacks = Counter(
            "tao_gateway_fallbacks",
            "Requests that no reachable replica could answer with a version of this kind.",
            ["kind"],
            registry=self._registry,
        )
        self._unreachable = Counter(
            "tao_gateway_unreachable_replicas",
            "Attempts at a replica that gave no answer.",
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "tao_gateway_in_flight_requests", "Requests being answered now.", registry=self._registry
        )
        self._generation = Gauge(
            "tao_gateway_routes_generation", "Generation of the routes in use.", registry=self._registry
        )
        self._connected = Gauge(
            "tao_gateway_daemon_connected",
            "1 while the daemon answers; 0 serves on with the last routes.",
            registry=self._registry,
        )
        self._routes = Info("tao_gateway_routes", "The adapters in use.", registry=self._registry)

    def ended(self, kind: Kind | None, status: str, seconds: float) -> None:
        """A request ended: `status` is a class such as 2xx, `cut` after the first byte, or `cancelled`."""
        self._requests.labels(kind or REFUSED, status).inc()
        self._seconds.labels(kind or REFUSED).observe(seconds)

    def fell_back(self, kind: Kind) -> None:
        self._fallbacks.labels(kind).inc()

    def unreachable(self) -> None:
        self._unreachable.inc()

    def routes(self, routes: Routes, connected: bool) -> None:
        self._generation.set(routes.generation)
        self._connected.set(connected)
        self._routes.info({"adapter": routes.adapter or "", "previous": routes.previous or ""})

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
