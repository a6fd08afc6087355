"""Room in a server's own queue: a look at its length lets in as many completions as it has room for.

One caller looks, the others wait behind it in order of arrival.
look → room: in, the next caller without a look | none: look again when there should be some
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.sampling.draining import FIRST_PAUSE_SECONDS, pause_between_looks, pause_until_room

_LOOK_TIMEOUT_SECONDS = 15.0
_STALE_SECONDS = 1.0
"""Age at which a look says nothing any more: others use the server too."""


class QueueLength(Protocol):
    async def waiting_requests(self) -> int:
        """Requests in the server's queue, ours included. Raises UpstreamError."""
        ...


class Room:
    """Of one server. Use from one event loop."""

    def __init__(self, server: QueueLength, max_waiting: int) -> None:
        self._server = server
        self._max_waiting = max_waiting
        self._turn = asyncio.Lock()
        self._looked_at = float("-inf")
        self._look_seconds = 0.0
        self._waiting = 0
        self._entered = 0
        """Completions let in since the last look."""

    async def enter(self, size: int) -> None:
        """Return when the queue is short enough for `size` more completions. Raises UpstreamError."""
        async with self._turn:
            if not self._has_room():
                await self._until_room()
            self._entered += size

    def _has_room(self) -> bool:
        fresh = asyncio.get_running_loop().time() - self._looked_at < _STALE_SECONDS
        return fresh and self._waiting + self._entered <= self._max_waiting

    async def _until_room(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        # What entered a moment ago may not be in the server's figures yet.
        await asyncio.sleep(self._looked_at + pause_between_looks(self._look_seconds) - loop.time())
        await self._look()
        while self._waiting > self._max_waiting:
            was, since = self._waiting, self._looked_at
            await asyncio.sleep(pause)
            await self._look()
            rate = (was - self._waiting) / max(self._looked_at - since, 1e-9)
            pause = pause_until_room(self._waiting - self._max_waiting, rate, pause)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_SECONDS):
                self._waiting = await self._server.waiting_requests()
        except (TimeoutError, UpstreamTimeout):
            # Not a timeout to the caller: what was asked costs nothing, another server may be asked at once.
            raise UpstreamError(
                f"the model server did not tell its queue length within {_LOOK_TIMEOUT_SECONDS:g} s"
            ) from None
        self._looked_at, self._entered = loop.time(), 0
        self._look_seconds = self._looked_at - started
