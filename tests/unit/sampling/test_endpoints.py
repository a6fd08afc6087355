"""Calls that wait for room at servers that failed: their deadlines may all pass at one moment."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.sampling.endpoints import Endpoints
from tao_daemon.sampling.pace import Unpaced

WAIT_SECONDS = 0.3


class Server:
    """Fails; from then on its queue is long, and never gets shorter."""

    def __init__(self) -> None:
        self.failures = 0

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.failures += 1
        raise UpstreamError("down")

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self.chat(body)

    async def tokenize(self, body: Mapping[str, Any]) -> tuple[int, ...]:
        return (1,)

    async def waiting_requests(self) -> int:
        return 1000 if self.failures else 0


async def test_deadlines_that_pass_together_are_failures_of_the_server_and_nothing_else() -> None:
    servers = [Server(), Server()]
    retry = RetryPolicy(attempts=2, patience_seconds=60.0, first_pause_seconds=0.1, longest_pause_seconds=0.1)
    endpoints = Endpoints(
        servers, max_waiting_requests=8, timeout_seconds=WAIT_SECONDS, retry=retry, pace=Unpaced()
    )  # fmt: skip
    calls = [asyncio.create_task(endpoints.call({"messages": []})) for _ in range(32)]
    while not all(server.failures for server in servers):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # all are asked again, and wait
    time.sleep(2 * WAIT_SECONDS)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert Counter(type(result) for result in results) == {UpstreamError: 32}
