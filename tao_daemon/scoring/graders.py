"""Verifiers as graders: what decides by one answer at a time, and agreement, which looks at all.

Checks run in worker threads, so the event loop never waits; those that take long in a thread of their own, so that
nobody else waits either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tao_daemon.domain.prompt import Prompt
from tao_daemon.scoring.agreement import agreement
from tao_daemon.scoring.request_verifier import request_verifier
from tao_daemon.scoring.verifier import Failure, Score, Verifier

Check = Callable[[Mapping[str, Any], str], Awaitable[Score]]
"""Request and answer to a score. Never raises."""


class RequestVerifier(Protocol):
    """Decides by request and answer. Safe from any thread, never raises, ends in bounded time."""

    def applies(self, request: Mapping[str, Any]) -> bool: ...

    def check(self, request: Mapping[str, Any], text: str) -> Score: ...


class EachText:
    """Implements `Grader`: each text by itself."""

    is_absolute = True
    unanswered = 0

    def __init__(
        self,
        check: Check,
        *,
        applies: Callable[[Mapping[str, Any]], bool] = lambda request: True,
        close: Callable[[], None] = lambda: None,
        is_free: bool = True,
    ) -> None:
        """`applies` is safe from any thread; `close` may block for a moment."""
        self.is_free = is_free
        self._check = check
        self._applies = applies
        self._close = close

    def applies(self, prompt: Prompt) -> bool:
        return self._applies(prompt.request)

    async def grade(self, prompt: Prompt, texts: Sequence[str]) -> list[Score]:
        return [await self._check(prompt.request, text) for text in texts]

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> list[Score] | None:
        return await self.grade(prompt, texts)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)


def by_text(verifier: Verifier) -> EachText:
    """By the answer's text alone."""

    async def check(request: Mapping[str, Any], text: str) -> Score:
        return await asyncio.to_thread(verifier.check, text)

    return EachText(check)


def one_by_one(verifier: Verifier, close: Callable[[], None]) -> EachText:
    """By the answer's text alone, one text at a time: for checks that take long.

    After `close`, which must end a check under way, those that wait are up to the verifier; later ones are an ERROR.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="one-by-one")

    async def check(request: Mapping[str, Any], text: str) -> Score:
        try:
            found = asyncio.get_running_loop().run_in_executor(thread, verifier.check, text)
        except RuntimeError:  # it takes no more
            return Failure.ERROR
        return await found

    def end() -> None:
        thread.shutdown(wait=False)
        close()

    return EachText(check, close=end, is_free=False)


def by_request(verifier: RequestVerifier) -> EachText:
    """By what the request says; it does not apply to requests that say nothing."""

    async def check(request: Mapping[str, Any], text: str) -> Score:
        return await asyncio.to_thread(verifier.check, request, text)

    return EachText(check, applies=verifier.applies)


def by_own_format() -> EachText:
    """By the form that a request itself demands; it applies to those that do."""

    def checked(request: Mapping[str, Any], text: str) -> Score:
        verifier = request_verifier(request)
        assert verifier is not None
        return verifier.check(text)

    async def check(request: Mapping[str, Any], text: str) -> Score:
        # The schema too is compiled there, when it is no longer remembered.
        return await asyncio.to_thread(checked, request, text)

    return EachText(check, applies=lambda request: request_verifier(request) is not None)


class AgreementGrader:
    """Implements `Grader` by the share of the texts that say the same."""

    is_free = False
    is_absolute = False
    unanswered = 0

    def __init__(self, extract: Callable[[str], str | None], *, low: float, high: float) -> None:
        """`extract` may raise TimeoutError."""
        self._extract = extract
        self._low = low
        self._high = high

    def applies(self, prompt: Prompt) -> bool:
        return True

    async def grade(self, prompt: Prompt, texts: Sequence[str]) -> list[Score]:
        try:
            return [*await asyncio.to_thread(agreement, texts, self._extract, low=self._low, high=self._high)]
        except TimeoutError:
            return [Failure.TIMEOUT] * len(texts)

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> None:
        """Two answers of two models agree about nothing."""

    async def close(self) -> None:
        """Nothing is held."""
