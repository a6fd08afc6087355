"""A gateway process: stateless, any number of replicas, serves on when the daemon is down.

routes → listening → ready → stop → no new connections → in flight ends or the deadline does
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tao_daemon.config import Config
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.proxy import Proxy
from tao_daemon.gateway.routes_client import RoutesClient
from tao_daemon.gateway.upstreams import Upstreams

log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")
# Below this level aiohttp quotes requests that it cannot parse.
_http_log.setLevel(logging.INFO)

_KEEP_ALIVE_SECONDS = 3.0
"""Below the 5 seconds after which vLLM's server closes an idle connection: never use one that is closing."""


async def run_gateway(config: Config, stop: asyncio.Event, ready: Callable[[int], None] | None = None) -> None:
    """Serve until `stop`, then let what is in flight end within daemon.shutdown_seconds.

    `ready` gets the port. Raises OSError when the address cannot be had.
    """
    meters = Meters()
    async with _sessions() as (models, daemon):
        routes = RoutesClient(
            config.gateway.daemon_url,
            config.gateway.routes_file or config.daemon.data_dir / "routes.json",
            f"{socket.gethostname()}-{os.getpid()}",
            daemon,
            meters.routes,
        )
        await routes.load()
        proxy = _proxy(config, models, routes, meters)
        runner = web.AppRunner(
            proxy.app(config.gateway.max_body_bytes),
            access_log=None,
            logger=_http_log,
            handler_cancellation=True,
            shutdown_timeout=config.daemon.shutdown_seconds,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, config.gateway.host, config.gateway.port, backlog=1024).start()
            port = int(runner.addresses[0][1])
            log.info("gateway listens", extra={"host": config.gateway.host, "port": port})
            await _until(stop, routes, lambda: ready(port) if ready else None)
        finally:
            proxy.draining = True
            await runner.cleanup()
            log.info("gateway stopped")


async def _until(stop: asyncio.Event, routes: RoutesClient, announce: Callable[[], None]) -> None:
    """Follow the routes until `stop`; a bug there ends the gateway instead of freezing its routes."""
    following = asyncio.create_task(routes.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        announce()
        await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        following.cancel()
        stopping.cancel()
        await asyncio.gather(following, stopping, return_exceptions=True)


def _proxy(config: Config, session: aiohttp.ClientSession, routes: RoutesClient, meters: Meters) -> Proxy:
    key = config.serving.api_key
    upstreams = Upstreams(config.serving.replicas, key.get_secret_value() if key else None, session, meters)
    return Proxy(
        upstreams,
        lambda: routes.routes,
        meters,
        base_model=config.serving.base_model,
        public_model=config.gateway.public_model,
        request_seconds=config.gateway.request_timeout_seconds,
    )


@asynccontextmanager
async def _sessions() -> AsyncIterator[tuple[aiohttp.ClientSession, aiohttp.ClientSession]]:
    """One pool for the model servers, without a limit that would queue requests unseen, and one for the daemon."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector) as models, aiohttp.ClientSession() as daemon:
        yield models, daemon
