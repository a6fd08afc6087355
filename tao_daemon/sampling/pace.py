"""Turns for sampling requests: as many in flight as the pacer allows, in order of arrival.

wait for a turn → request → give it back
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Protocol

from tao_daemon.domain.signals import Emit, SamplingPaced, discard
from tao_daemon.sampling.pacing import INTERVAL_SECONDS, Histogram, Look, Pacer


class Pace(Protocol):
    def turn(self) -> AbstractAsyncContextManager[None]:
        """Use as `async with pace.turn():` around one request."""
        ...


class Unpaced:
    """Every turn comes at once: the servers are ours alone."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


class LivePace:
    """Paces by what live answers take. `run` until cancelled; without `run`, every turn comes at once."""

    def __init__(self, pacer: Pacer, live: Callable[[], Histogram], emit: Emit = discard) -> None:
        """`live` gives the cumulative live answers per bucket, () while no gateway reports."""
        self._pacer = pacer
        self._live = live
        self._emit = emit
        self._in_flight = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        return self._pacer.limit

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pacer = self._pacer
            pacer.look(Look(loop.time(), self._live()), in_flight=self._in_flight, waiting=len(self._queue))
            self._admit()
            held = pacer.held if self._queue else ""
            self._emit(SamplingPaced(pacer.limit, self._in_flight, len(self._queue), pacer.slowdown, held))
            await asyncio.sleep(INTERVAL_SECONDS)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more may be in flight. The caller's own deadline does not run before."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(ticket)
        self._admit()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                self._leave()
            with suppress(ValueError):  # another turn may have passed over it already
                self._queue.remove(ticket)
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._in_flight < self._pacer.limit:
            ticket = self._queue.popleft()
            if not ticket.done():
                self._in_flight += 1
                ticket.set_result(None)
