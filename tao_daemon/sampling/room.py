"""Room in a server's own queue: a look at its length lets in as many completions as it has room for.

One caller looks, the others wait behind it in order of arrival.
look → room: in, the next caller without a look | none: look again when there should be some
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.sampling.draining import FIRST_PAUSE_SECONDS, Drain, allowance, pause_between_looks, pause_until_room

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
        self._looked_at = self._silent_at = float("-inf")
        self._look_seconds = 0.0
        self._waiting = 0
        self._drain = Drain()
        self._entered = 0
        """Completions let in since the last look."""

    async def enter(self, size: int) -> None:
        """Return when the queue is short enough for `size` more completions. Raises UpstreamError."""
        arrived = asyncio.get_running_loop().time()
        async with self._turn:
            if self._silent_at >= arrived:  # who stood behind a look that got no answer does not wait for another
                raise _silent()
            if not self._has_room():
                await self._until_room()
            self._entered += size

    def _has_room(self) -> bool:
        most = allowance(self._max_waiting, self._drain.per_second, self._look_seconds)
        return self._age() < _STALE_SECONDS and self._waiting + self._entered <= most

    async def _until_room(self) -> None:
        # What entered a moment ago may not be in the server's figures yet.
        await asyncio.sleep(pause_between_looks(self._look_seconds) - self._age())
        await self._look()
        pause = 0.5 * FIRST_PAUSE_SECONDS
        while self._waiting > self._max_waiting:
            pause = pause_until_room(self._waiting - self._max_waiting, self._drain.per_second, pause)
            await asyncio.sleep(pause)
            await self._look()

    async def _look(self) -> None:
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_SECONDS):
                waiting = await self._server.waiting_requests()
        except (TimeoutError, UpstreamTimeout):
            self._silent_at = asyncio.get_running_loop().time()
            raise _silent() from None
        self._drain.saw(asyncio.get_running_loop().time(), self._waiting + self._entered - waiting)
        self._waiting, self._entered = waiting, 0
        self._looked_at = asyncio.get_running_loop().time()
        self._look_seconds = self._looked_at - started

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._looked_at


def _silent() -> UpstreamError:
    # Not a timeout to the caller: what was asked costs nothing, another server may be asked at once.
    return UpstreamError(f"the model server did not tell its queue length within {_LOOK_TIMEOUT_SECONDS:g} s")
