"""A port for the metrics of one process alone: a scrape of a shared port would reach any of those that share it.

listening → (GET /metrics)* → closed
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tao_daemon.clients.prometheus import CONTENT_TYPE

Exposition = Callable[[], bytes]


def scraped(exposition: Exposition) -> web.Response:
    """The answer to a scrape."""
    return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE})


@asynccontextmanager
async def metrics_site(exposition: Exposition, host: str, port: int) -> AsyncIterator[None]:
    """Answer scrapes on `port`; 0 for nowhere. Raises OSError when the address cannot be had."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path != "/metrics" or request.method not in ("GET", "HEAD"):
            return web.Response(status=404, text="only GET /metrics is here\n")
        return scraped(exposition)

    if not port:
        yield
        return
    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
