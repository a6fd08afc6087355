"""Calls to the model servers that never press a busy one: the least busy first, back-off, deadline, retries.

Asking a model again is harmless, so what may pass is asked again, of the next server. A server that failed, or hangs,
is left out for a while, as long as there is another: whatever does not blame the request blames the server.
call → wait for a turn and for room → ask within the deadline → answer | retry elsewhere | UpstreamError
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any, Protocol, TypeVar

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.sampling.pace import Pace
from tao_daemon.sampling.room import QueueLength, Room

T = TypeVar("T")

REFUSALS = (400, 413, 422)
"""Statuses that blame the request itself: no server and no later time will take it."""

_FIRST_ABSENCE_SECONDS, _LONGEST_ABSENCE_SECONDS = 1.0, 30.0
_TOKENIZE_SECONDS = 60.0


class ModelServer(QueueLength, Protocol):
    """One vLLM server. Every method raises UpstreamError."""

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def tokenize(self, body: Mapping[str, Any]) -> tuple[int, ...]: ...


def is_refusal(error: UpstreamError) -> bool:
    return error.status in REFUSALS


class Endpoints:
    """The servers to ask. Use from one event loop."""

    def __init__(
        self,
        servers: Sequence[ModelServer],
        *,
        max_waiting_requests: int,
        timeout_seconds: float,
        retry: RetryPolicy,
        pace: Pace,
    ) -> None:
        if not servers:
            raise ValueError("no model server to sample from; set serving.replicas or sampling.endpoint")
        self._endpoints = [_Endpoint(server, max_waiting_requests) for server in servers]
        self._turns = count()
        self._timeout = timeout_seconds
        self._retry = retry
        self._pace = pace

    async def call(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a chat or completions body. Raises UpstreamError when retries are used up.

        Waiting for a busy server does not count towards the deadline of the request.
        """
        size = int(body.get("n", 1))

        async def ask(endpoint: _Endpoint) -> dict[str, Any]:
            with endpoint.busy(size), endpoint.judged():
                await (endpoint.room.enter(size) if len(self._endpoints) == 1 else endpoint.enter(size, self._timeout))
                operation = endpoint.server.chat if "messages" in body else endpoint.server.complete
                return await _within(operation(body), self._timeout, "sampling.timeout_seconds")

        return await self._somewhere(ask, self._pace.turn)

    async def tokenize(self, body: Mapping[str, Any]) -> tuple[int, ...]:
        """Token ids, by the server's own tokenizer; costs the model no time. Raises UpstreamError.

        It tells nothing of the engine, which may be down behind a tokenizer that answers.
        """
        return await self._somewhere(
            lambda endpoint: _within(endpoint.server.tokenize(body), _TOKENIZE_SECONDS, "the time for tokenizing"),
            nullcontext,
        )

    async def _somewhere(
        self, ask: Callable[[_Endpoint], Awaitable[T]], turn: Callable[[], AbstractAsyncContextManager[None]]
    ) -> T:
        tried: list[_Endpoint] = []
        denied: set[_Endpoint] = set()

        async def once() -> T:
            while True:
                async with turn():
                    endpoint = self._next(tried, denied)
                    tried.append(endpoint)
                    try:
                        return await ask(endpoint)
                    except UpstreamError as error:
                        if not error.is_denial:
                            raise
                        denied.add(endpoint)
                        if len(denied) == len(self._endpoints):
                            raise

        return await self._retry.call(once)

    def _next(self, tried: Sequence[_Endpoint], denied: Set[_Endpoint]) -> _Endpoint:
        """Not one that denied, was tried more often, or is absent, while there is another; of the rest the least
        busy."""
        now, turn, total = asyncio.get_running_loop().time(), next(self._turns), len(self._endpoints)
        # Ties are broken in turn.
        order = [self._endpoints[(turn + place) % total] for place in range(total)]
        return min(order, key=lambda each: (each in denied, tried.count(each), each.is_absent(now), each.in_flight))


class _Endpoint:
    def __init__(self, server: ModelServer, max_waiting: int) -> None:
        self.server = server
        self.room = Room(server, max_waiting)
        self.in_flight = 0
        """Completions that are asked for, or wait for room here."""
        self._entering: set[asyncio.Timeout] = set()
        self._absence = 0.0
        """Seconds; 0 while it answers."""
        self._absent_until = 0.0
        self._doubles_at = 0.0

    def is_absent(self, now: float) -> bool:
        # One call finds out whether a server that failed is back; the others need not wait for that.
        return now < self._absent_until or (self._absence > 0.0 and self.in_flight > 0)

    @contextmanager
    def busy(self, size: int) -> Iterator[None]:
        self.in_flight += size
        try:
            yield
        finally:
            self.in_flight -= size

    async def enter(self, size: int, seconds: float) -> None:
        """Wait for room until this server fails, or for `seconds` where it failed before: its queue may never get
        shorter, and another server may have room."""
        wait = asyncio.timeout(seconds if self._absence else None)
        try:
            async with wait:
                self._entering.add(wait)
                await self.room.enter(size)
        except TimeoutError:
            raise UpstreamError("the model server failed, and its queue has no room") from None
        finally:
            self._entering.discard(wait)

    @contextmanager
    def judged(self) -> Iterator[None]:
        try:
            yield
        except UpstreamError as error:
            if not is_refusal(error):
                self._failed(asyncio.get_running_loop().time())
            raise
        self._absence = self._absent_until = self._doubles_at = 0.0

    def _failed(self, now: float) -> None:
        # Calls that were in flight when it went down say nothing new.
        if now >= self._doubles_at:
            self._absence = min(max(2.0 * self._absence, _FIRST_ABSENCE_SECONDS), _LONGEST_ABSENCE_SECONDS)
        self._absent_until = self._doubles_at = now + self._absence
        for wait in self._entering:
            if not wait.expired():  # one whose time is up already ends by itself, and cannot be moved
                wait.reschedule(now)
        self._entering.clear()


async def _within(asked: Awaitable[T], seconds: float, limit: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await asked
    except TimeoutError:
        raise UpstreamTimeout(f"the model server did not answer within {limit} ({seconds:g} s)") from None
