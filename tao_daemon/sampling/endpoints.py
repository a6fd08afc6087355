"""Calls to the model servers that never press a busy one: round robin, back-off, deadline, retries.

Asking a model again is harmless, so what may pass is asked again, of the next server.
call → wait for room and for a turn → ask within the deadline → answer | retry elsewhere | UpstreamError
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Protocol

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.sampling.pace import Pace

REFUSALS = (400, 413, 422)
"""Statuses that blame the request itself: no server and no later time will take it."""

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_POLL_TIMEOUT_SECONDS = 15.0


class ModelServer(Protocol):
    """One vLLM server. Every method raises UpstreamError."""

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def waiting_requests(self) -> int:
        """Requests in the server's queue, ours included."""
        ...


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
        # Each call goes its own way round, so that asking again always means another server.
        turns = count(next(self._turns))

        async def once() -> dict[str, Any]:
            endpoint = self._endpoints[next(turns) % len(self._endpoints)]
            await endpoint.room()
            async with self._pace.turn():
                return await endpoint.ask(body, self._timeout)

        return await self._retry.call(once)


class _Endpoint:
    def __init__(self, server: ModelServer, max_waiting_requests: int) -> None:
        self._server = server
        self._max_waiting = max_waiting_requests
        self._turn = asyncio.Lock()

    async def room(self) -> None:
        """Return when the server's queue is short enough. One caller at a time looks, in order of arrival."""
        async with self._turn:
            pause = _FIRST_PAUSE_SECONDS
            while await self._waiting() > self._max_waiting:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def ask(self, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        operation = self._server.chat if "messages" in body else self._server.complete
        try:
            async with asyncio.timeout(timeout):
                return await operation(body)
        except TimeoutError:
            raise UpstreamTimeout(
                f"the model server did not answer within sampling.timeout_seconds ({timeout:g} s)"
            ) from None

    async def _waiting(self) -> int:
        try:
            async with asyncio.timeout(_POLL_TIMEOUT_SECONDS):
                return await self._server.waiting_requests()
        except TimeoutError:
            raise UpstreamTimeout(
                f"the model server did not tell its queue length within {_POLL_TIMEOUT_SECONDS:g} s"
            ) from None
