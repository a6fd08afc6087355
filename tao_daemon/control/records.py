"""What the control API tells of the past, and of adapters. Read from disk, in threads.

The threads are those of the rounds: what reads the whole journal has one of them, however many ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from tao_daemon.control import insight, models
from tao_daemon.control.past import NoSuchRound, Past
from tao_daemon.control.problems import not_found
from tao_daemon.control.prompt_text import prompt_text
from tao_daemon.domain.errors import AdapterError
from tao_daemon.domain.ports import AdapterStore, PromptStore
from tao_daemon.domain.report import AnswerOrder

_Read = TypeVar("_Read")


class Records:
    """Every method may be called at any time, also while a round runs."""

    def __init__(self, past: Past, adapters: AdapterStore, store: PromptStore) -> None:
        self._past = past
        self._adapters = adapters
        self._store = store
        self._folding = asyncio.Lock()
        self._verifying: asyncio.Task[models.Verification] | None = None

    async def rounds(self, limit: int, before: int | None) -> models.Rounds:
        return models.Rounds(**await asyncio.to_thread(self._past.rounds, limit, before))

    async def trend(self, limit: int) -> models.RoundTrend:
        return models.RoundTrend(**await asyncio.to_thread(self._past.trend, limit))

    async def round(self, number: int) -> dict[str, Any]:
        """The report, and every criterion of its gate in words."""
        return await _of_rounds(lambda: self._past.round(number))

    async def comparison(self, left: int, right: int) -> dict[str, Any]:
        return await _of_rounds(lambda: self._past.comparison(left, right))

    async def rewards(self, number: int) -> dict[str, Any]:
        return await _of_rounds(lambda: self._past.rewards(number))

    async def answers(self, number: int, order: AnswerOrder, limit: int, offset: int) -> dict[str, Any]:
        """Both answers to held-out prompts. The prompts come from the buffer; an erased one is null."""
        page = await _of_rounds(lambda: self._past.answers(number, order, limit, offset))
        prompts = await self._store.read([row["prompt_id"] for row in page.rows])
        return insight.answers(page, {id: prompt_text(prompt) for id, prompt in prompts.items()})

    async def rollouts(self, limit: int) -> models.PastRollouts:
        async with self._folding:
            return models.PastRollouts(**await asyncio.to_thread(self._past.rollouts, limit))

    async def adapters(self) -> models.Adapters:
        def read() -> list[dict[str, Any]]:
            return [self._adapter(name) for name in self._adapters.names()]

        return models.Adapters(adapters=await asyncio.to_thread(read))

    async def adapter(self, name: str) -> dict[str, Any]:
        if name not in await asyncio.to_thread(self._adapters.names):
            raise not_found(f"there is no adapter {name[:80]!r}", "GET /v1/adapters lists them")
        return await asyncio.to_thread(self._adapter, name)

    async def audit(self, after: int, limit: int, *, full: bool) -> models.Audit:
        return models.Audit(**await asyncio.to_thread(self._past.audit, after, limit, full=full))

    async def verification(self) -> models.Verification:
        """Check the whole hash chain. Whoever asks while it is being checked gets what that finds."""
        if self._verifying is None or self._verifying.done():
            self._verifying = asyncio.create_task(self._verify())
        return await asyncio.shield(self._verifying)

    async def _verify(self) -> models.Verification:
        return models.Verification(**await asyncio.to_thread(self._past.verification))

    def _adapter(self, name: str) -> dict[str, Any]:
        try:
            record = self._adapters.get(name)
        except AdapterError as error:
            return {"name": name, "problem": str(error)}
        lineage = asdict(record)["lineage"]
        return {
            "name": record.name,
            "digest": record.digest,
            "rank": record.rank,
            "created_at": record.created_at,
            "lineage": {**lineage, "prompt_ids": len(lineage["prompt_ids"])},
            "problem": None,
        }


async def _of_rounds(read: Callable[[], _Read]) -> _Read:
    """In a thread; a round that is not there is 404."""
    try:
        return await asyncio.to_thread(read)
    except NoSuchRound as error:
        raise not_found(str(error), "GET /v1/rounds lists them") from None
