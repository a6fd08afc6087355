"""uvicorn in the daemon's own event loop: listens, serves, and stops when told, within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket

import uvicorn
from fastapi import FastAPI

log = logging.getLogger(__name__)

_STOP_SECONDS = 1
_KEEP_ALIVE_SECONDS = 75
"""Longer than a gateway's long poll takes."""
_START_SECONDS = 10.0


@asynccontextmanager
async def serving(app: FastAPI, host: str, port: int) -> AsyncIterator[int]:
    """Serve within the block; gives the port. Raises OSError when the address cannot be had."""
    with closing(_bound(host, port)) as bound:
        server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        running = asyncio.create_task(server.serve([bound]))
        try:
            await server.wait_listening(running)
            where = int(bound.getsockname()[1])
            log.info("control API listens", extra={"host": host, "port": where})
            yield where
        finally:
            server.should_exit = True
            await asyncio.gather(running, return_exceptions=True)


class _Server(uvicorn.Server):
    """Leaves the process's signals to the process, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    async def wait_listening(self, running: asyncio.Task[None]) -> None:
        """Raises what ended `running`, or TimeoutError."""
        listening = asyncio.create_task(self._listening.wait())
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.wait([listening, running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if running.done():
            running.result()


def _bound(host: str, port: int) -> socket:
    family, kind, protocol, _, where = getaddrinfo(host, port, type=SOCK_STREAM)[0]
    bound = socket(family, kind, protocol)
    try:
        bound.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound
