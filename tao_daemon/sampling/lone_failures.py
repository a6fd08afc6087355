"""Every prompt of a pass asked, and a prompt that fails alone told from a server that fails.

ask all → some failed: is one that was answered answered again? no: an outage → yes: those that failed once more
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from tao_daemon.domain.errors import UpstreamError

T = TypeVar("T")

Ask = Callable[[int], Coroutine[Any, Any, T | None]]
"""What the server says to the prompt at a place; None for one that it refuses. Raises UpstreamError."""
Pass = Callable[[Iterator[Coroutine[Any, Any, Any]], int], AsyncGenerator[Any, None]]
"""Runs so many coroutines, a few at a time; results as they finish."""


class Questions(Generic[T]):
    """One pass over `count` prompts. `outage` failures in a row make it look whether the server is there."""

    def __init__(self, count: int, ask: Ask[T], run: Pass, *, outage: int) -> None:
        self._count, self._ask, self._run, self._outage = count, ask, run, outage
        self._found: dict[int, T | None] = {}

    async def answered(self) -> Mapping[int, T | None]:
        """Answers by place, without those that failed twice while the server answered others before and after. Raises
        UpstreamError for an outage, and where a server denies what is asked."""
        if failed := await self._asked(range(self._count)):
            await self._asked(failed)
        return self._found

    async def _asked(self, places: Sequence[int]) -> list[int]:
        failed: list[int] = []
        in_a_row = 0
        async with aclosing(self._run(map(self._tried, places), len(places))) as results:
            async for place, result in results:
                if not isinstance(result, UpstreamError):
                    self._found[place], in_a_row = result, 0
                    continue
                failed.append(place)
                in_a_row += 1
                if result.is_denial or in_a_row >= self._outage:
                    await self._require(result)
                    in_a_row = 0
        if in_a_row:
            await self._require(result)
        return failed

    async def _tried(self, place: int) -> tuple[int, T | UpstreamError | None]:
        try:
            return place, await self._ask(place)
        except UpstreamError as error:
            return place, error

    async def _require(self, error: UpstreamError) -> None:
        """Raise, unless the server still answers what it answered before."""
        known = next((place for place, answer in self._found.items() if answer is not None), None)
        if known is None or error.is_denial:
            raise error
        await self._ask(known)
