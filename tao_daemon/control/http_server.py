"""uvicorn in the daemon's own event loop: listens, serves, and stops when told, within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

_STOP_SECONDS = 1
_KEEP_ALIVE_SECONDS = 75
"""Longer than a gateway's long poll takes."""
_START_SECONDS = 10.0
_MAX_HEAD_BYTES = 65_536


@asynccontextmanager
async def serving(app: FastAPI, host: str, port: int, dismiss: Callable[[], None]) -> AsyncIterator[int]:
    """Serve within the block; gives the port. Raises OSError when the address cannot be had.

    `dismiss` is called before the stop: what waits for something to happen should answer now.
    """
    with closing(_bound(host, port)) as bound:
        server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
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
            dismiss()
            server.should_exit = True
            await asyncio.gather(running, return_exceptions=True)


class _Protocol(HttpToolsProtocol):
    """With a limit on what a client may send that is no body: the parser keeps it, and copies it as it grows."""

    _head_bytes = 0
    _moved_on = False

    def data_received(self, data: bytes) -> None:
        self._moved_on = False
        super().data_received(data)
        self._head_bytes = 0 if self._moved_on else self._head_bytes + len(data)
        if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of a request has at most {_MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._moved_on = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved_on = True
        super().on_message_complete()


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
