"""HTTP/1.1 to the model servers: POST, keep-alive, answers as they come. Nothing else, and so it costs little.

A general client spends more on a request than all the rest of a gateway does. Invariants: one request at a time per
connection; what a reader does not take is not read from the socket; a connection is used again only after a whole
answer.

idle | new connection → request sent → head → body, chunk by chunk → whole: idle again | released early: closed
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httptools

_HIGH_WATER_BYTES = 262_144
"""Unread bytes of an answer above which the socket is left alone until a reader has taken them."""


class CannotConnect(Exception):
    """No connection: refused, unreachable, or not in time. The request was not sent."""


class Broken(Exception):
    """The connection was lost, or what came over it is not HTTP."""


class Idle(Exception):
    """Nothing came for longer than the idle limit."""


class Response:
    """An answer whose head has arrived. `release` it, whatever happens."""

    def __init__(self, connection: _Connection, status: int, content_type: str) -> None:
        self.status = status
        self.content_type = content_type
        self._connection = connection

    async def read(self) -> bytes:
        """The whole body. Raises Broken, Idle."""
        parts = []
        while chunk := await self.read_any():
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_any(self) -> bytes:
        """What is there, or the next bytes; empty at the end. Raises Broken, Idle."""
        return await self._connection.read_any()

    def release(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        self._connection.release()


class Client:
    """Connections to one server. `base_url` may have a path; `headers` go with every request."""

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, connect_seconds: float, keep_alive_seconds: float
    ) -> None:
        parts = urlsplit(base_url)
        secure = parts.scheme == "https"
        self._ssl = ssl.create_default_context() if secure else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._head = b"".join(
            _line(name, value) for name, value in {"Host": parts.netloc.rpartition("@")[2], **headers}.items()
        )
        self._connect_seconds = connect_seconds
        self._keep_alive = keep_alive_seconds
        self._idle: list[_Connection] = []
        self._loop = asyncio.get_running_loop()

    async def post(self, path: str, payload: bytes, headers: Mapping[str, str], idle_seconds: float | None) -> Response:
        """Send a request; its answer once the head is there. Raises CannotConnect, Broken, Idle."""
        connection = self._take() or await self._connect()
        own = b"".join(_line(name, value) for name, value in headers.items())
        first = b"POST %b HTTP/1.1\r\n" % (self._prefix + path).encode()
        try:
            return await connection.exchange(
                b"%b%b%bContent-Length: %d\r\n\r\n%b" % (first, self._head, own, len(payload), payload), idle_seconds
            )
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        """The connection used last: the others can grow old."""
        oldest = self._loop.time() - self._keep_alive
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self._loop, self._give_back), self._host, self._port, ssl=self._ssl
                )
        except (TimeoutError, OSError):
            raise CannotConnect from None
        return connection

    def _give_back(self, connection: _Connection) -> None:
        self._idle.append(connection)
        oldest = connection.since - self._keep_alive
        while self._idle[0].since < oldest:
            self._idle.pop(0).close()


class _Connection(asyncio.Protocol):
    """One socket; also the parser's callbacks."""

    _head_done: bool
    _complete: bool
    """The whole answer has come."""
    _framed: bool
    """The answer says where it ends."""
    _reusable: bool
    _paused: bool

    def __init__(self, loop: asyncio.AbstractEventLoop, give_back: Callable[[_Connection], None]) -> None:
        self._loop = loop
        self._give_back = give_back
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self.since = 0.0
        """When the last bytes came, in the loop's time."""
        self._begin()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent: nothing has come since the last answer ended."""
        return self._error is None and not self._transport.is_closing()

    async def exchange(self, request: bytes, idle_seconds: float | None) -> Response:
        """Send a request and wait for the head of its answer."""
        self._begin()
        self.since = self._loop.time()
        if idle_seconds is not None:
            self._idle_timer = self._loop.call_later(idle_seconds, self._check_idle, idle_seconds)
        self._transport.write(request)
        while not self._head_done:
            await self._wait()
        return Response(self, self._parser.get_status_code(), self._content_type)

    async def read_any(self) -> bytes:
        while not self._chunks:
            if self._complete:
                return b""
            await self._wait()
        chunk = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    def release(self) -> None:
        self._stop_timer()
        if self._complete and self._reusable and self.usable:
            self._chunks.clear()
            self._give_back(self)
        else:
            self.close()

    def close(self) -> None:
        """At once: a model server that still generates for us must notice."""
        self._stop_timer()
        self._error = self._error or Broken()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.since = self._loop.time()
        if self._complete:
            self._fail(Broken())  # bytes that nobody asked for
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(Broken())
            return
        if self._unread > _HIGH_WATER_BYTES and not self._complete and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self._head_done and not self._framed and not error:
            self._complete = True  # an answer without a length ends with its connection
        self._error = self._error or Broken()
        self._wake()

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-type":
            self._content_type = value.decode("latin-1")
        elif lower in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        # 1xx is not the answer.
        self._head_done = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._complete = True
            self._reusable = self._framed and self._parser.should_keep_alive()

    def _begin(self) -> None:
        """As before the first byte of an answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._head_done = self._complete = self._framed = self._reusable = self._paused = False
        self._content_type = ""

    async def _wait(self) -> None:
        """Until something happened. Raises what went wrong, after everything that came before was read."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._transport.abort()
        self._wake()

    def _check_idle(self, limit: float) -> None:
        left = self.since + limit - self._loop.time()
        if self._paused or left > 0:
            self._idle_timer = self._loop.call_later(max(left, limit / 10), self._check_idle, limit)
        else:
            self._fail(Idle())

    def _stop_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None


def _line(name: str, value: str) -> bytes:
    """A header as it goes on the wire. Values come from parsed headers or the configuration: no line ends."""
    assert "\r" not in value
    assert "\n" not in value
    return f"{name}: {value}\r\n".encode(errors="surrogateescape")
