"""Clients that never stop asking: half of them stream. Every answer is checked to be whole and of one version."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

import aiohttp

from tao_daemon.embedded.producer import streamed_text

_TIMEOUT = aiohttp.ClientTimeout(total=120.0)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that did not end well. `began` is monotonic seconds."""

    began: float
    streamed: bool
    what: str


@dataclass
class LiveLoad:
    """`async with LiveLoad(url, clients=8) as load:`; counts grow until the end of the block."""

    url: str
    clients: int
    max_tokens: int = 16
    pause_seconds: float = 0.0
    requests: int = 0
    streams: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    """(began, took) of every whole answer."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        self._tasks = [asyncio.create_task(self._ask_on(number % 2 == 0)) for number in range(self.clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    async def _ask_on(self, stream: bool) -> None:
        while True:
            began = time.monotonic()
            self.requests += 1
            self.streams += stream
            try:
                self.versions[await self._ask(stream)] += 1
                self.seconds.append((began, time.monotonic() - began))
            except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
                self.failures.append(Failure(began, stream, f"{type(error).__name__}: {error}"))
                await asyncio.sleep(0.05)
            await asyncio.sleep(self.pause_seconds)

    async def _ask(self, stream: bool) -> str:
        """One request; the version that answered. Raises ValueError for an answer that is not whole."""
        assert self._session is not None
        text = f"Question number {next(self._numbers)}"
        body = {
            "model": "assistant",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "stream": stream,
        }
        async with self._session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            said = await response.text()
            named = response.headers.getall("X-Tao-Version", [])
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {said[:200]}")
        if len(named) != 1:
            raise ValueError(f"{len(named)} versions named")
        if stream:
            _check_stream(said)
        else:
            json.loads(said)["choices"][0]
        return str(named[0])


def _check_stream(said: str) -> None:
    try:
        streamed_text(said)
    except (ValueError, LookupError) as error:
        raise ValueError(f"{error}; it ends with {said[-200:]!r}") from None
