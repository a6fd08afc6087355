"""A gateway process: stateless, any number of replicas, serves on when the daemon is down.

routes → listening → ready → stop → no new connections → in flight ends or the deadline does → the last report
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable

import aiohttp
from aiohttp import web

from tao_daemon import __version__
from tao_daemon.config import Config
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import GatewayReport
from tao_daemon.gateway.capture import Capture
from tao_daemon.gateway.evidence import Evidence
from tao_daemon.gateway.handlers import Handlers
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.proxy import Proxy
from tao_daemon.gateway.reporter import Reporter
from tao_daemon.gateway.routes_client import RoutesClient
from tao_daemon.gateway.scrape import metrics_site
from tao_daemon.gateway.token import Token
from tao_daemon.gateway.upstreams import Upstreams
from tao_daemon.gateway.workers import own_port

log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")
# Below this level aiohttp quotes requests that it cannot parse.
_http_log.setLevel(logging.INFO)

_FLUSH_SECONDS = 3.0
"""For captured prompts, at the stop."""


async def run_gateway(
    config: Config, stop: asyncio.Event, ready: Callable[[int], None] | None = None, *, clock: Clock
) -> None:
    """Serve until `stop`, then let what is in flight end within daemon.shutdown_seconds.

    `ready` gets the port. Raises OSError when an address cannot be had.
    """
    meters, own = Meters(__version__, clock), config.gateway
    async with aiohttp.ClientSession() as daemon, metrics_site(meters.exposition, own.host, own_port(own.metrics_port)):
        gateway = _Gateway(config, daemon, meters)
        try:
            await gateway.routes.load()
            await _serve(config, gateway, stop, ready or (lambda port: None))
        finally:
            await gateway.close()
            log.info("gateway stopped")


async def _serve(config: Config, gateway: _Gateway, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
    """Listen until `stop`; the routes are followed and reports go out to the end of the drain."""
    runner = web.ServerRunner(gateway.server(), shutdown_timeout=config.daemon.shutdown_seconds)
    await runner.setup()
    following = asyncio.create_task(gateway.follow())
    host, reuse_port = config.gateway.host, config.gateway.processes > 1
    try:
        await web.TCPSite(runner, host, config.gateway.port, backlog=1024, reuse_port=reuse_port).start()
        port = int(runner.addresses[0][1])
        log.info("gateway listens", extra={"host": host, "port": port, "gateway": gateway.id})
        ready(port)
        await _first(stop, following)
    finally:
        gateway.handlers.draining = True
        await runner.cleanup()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class _Gateway:
    """The parts of one process, put together."""

    def __init__(self, config: Config, daemon: aiohttp.ClientSession, meters: Meters) -> None:
        gateway, key, token = config.gateway, config.serving.api_key, config.gateway.daemon_token
        # Process numbers repeat, in containers above all; a report under an old name would take counters back.
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._max_body_bytes = gateway.max_body_bytes
        self._meters = meters
        self._evidence = Evidence()
        self._capture = Capture(config, self._meters) if gateway.capture else None
        routes_file = gateway.routes_file or config.daemon.data_dir / "routes.json"
        shown = Token(token.get_secret_value() if token else None, config.daemon.data_dir / "control.token")
        self.routes = RoutesClient(gateway.daemon_url, routes_file, self.id, daemon, shown, self._routes_changed)
        self._reporter = Reporter(
            gateway.daemon_url,
            daemon,
            self._report,
            shown,
            self._meters,
            every_seconds=gateway.report_seconds,
        )
        self._upstreams = Upstreams(config.serving.replicas, key.get_secret_value() if key else None, self._meters)
        proxy = Proxy(
            self._upstreams,
            lambda: self.routes.routes,
            self._meters,
            self._evidence,
            self._capture,
            base_model=config.serving.base_model,
            public_model=gateway.public_model,
            conversation_header=gateway.conversation_header,
            request_seconds=gateway.request_timeout_seconds,
        )
        self.handlers = Handlers(proxy, meters.exposition if gateway.processes == 1 else None, gateway.public_model)

    def server(self) -> web.Server:
        """The HTTP server, without a connection yet."""
        loop, limit = asyncio.get_running_loop(), self._max_body_bytes

        def request(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)

        return web.Server(
            self.handlers, request_factory=request, access_log=None, logger=_http_log, handler_cancellation=True
        )

    async def follow(self) -> None:
        """Keep routes current and the daemon informed, until cancelled."""
        with self._meters.process.counting():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._meters.process.watch_loop())
                group.create_task(self.routes.run())
                group.create_task(self._reporter.run())

    async def close(self) -> None:
        """Flush what was captured, and say that nothing is in flight any more."""
        self._upstreams.close()
        if self._capture is not None:
            await self._capture.close(_FLUSH_SECONDS)
        await self._reporter.send()
        await self._reporter.leave()

    def _routes_changed(self, routes: Routes, connected: bool) -> None:
        self._meters.routes(routes, connected)
        self._reporter.nudge()

    def _report(self) -> GatewayReport:
        meters = self._meters
        requests, failed = meters.outcomes()
        return GatewayReport(
            gateway=self.id,
            generation=self.routes.routes.generation,
            in_flight=dict(meters.by_model),
            splits=self._evidence.splits(),
            durations=tuple(meters.completed.counts),
            captured=meters.captured,
            capture_dropped=sum(meters.capture_dropped.values()) + meters.capture_failed,
            requests=requests,
            failed=failed,
        )


async def _first(stop: asyncio.Event, following: asyncio.Task[None]) -> None:
    """Wait for `stop`; a bug in what follows the routes ends the gateway instead of freezing them."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        stopping.cancel()
