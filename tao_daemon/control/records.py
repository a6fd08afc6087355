"""What the control API tells of the past: rounds, rollouts, adapters, the audit log. Read from disk, in threads.

The threads are those of the rounds: what reads the whole journal has one of them, however many ask.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from tao_daemon.control import insight, models
from tao_daemon.control.explanation import explain, trend
from tao_daemon.control.history import RolloutHistory
from tao_daemon.control.problems import not_found
from tao_daemon.control.prompt_text import prompt_text
from tao_daemon.domain.errors import AdapterError, JournalError
from tao_daemon.domain.ports import AdapterStore, PromptStore
from tao_daemon.domain.report import AnswerOrder, AnswerPage
from tao_daemon.registry.chain import GENESIS, heads
from tao_daemon.registry.journal import Entry
from tao_daemon.registry.journal_reader import ReadOnlyJournal
from tao_daemon.registry.round_archive import RoundArchive

_EMPTY = models.Head(seq=0, hash=GENESIS)
_PAGE = 500


class Records:
    """Every method may be called at any time, also while a round runs."""

    def __init__(
        self, archive: RoundArchive, adapters: AdapterStore, store: PromptStore, journal: ReadOnlyJournal
    ) -> None:
        self._archive = archive
        self._adapters = adapters
        self._store = store
        self._journal = journal
        self._history = RolloutHistory()
        self._folding = asyncio.Lock()
        self._verifying: asyncio.Task[models.Verification] | None = None

    async def rounds(self, limit: int, before: int | None) -> models.Rounds:
        return models.Rounds(rounds=await asyncio.to_thread(self._archive.reports, limit=limit, before=before))

    async def trend(self, limit: int) -> models.RoundTrend:
        reports = await asyncio.to_thread(self._archive.reports, limit=limit)
        return models.RoundTrend(trend=trend(reports))

    async def round(self, number: int) -> dict[str, Any]:
        """The report, and every criterion of its gate in words."""
        report = await asyncio.to_thread(self._report, number)
        return {**report, "explanation": explain(report)}

    async def comparison(self, left: int, right: int) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: insight.compare(self._report(left), self._report(right)))

    async def rewards(self, number: int) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            self._report(number)
            return insight.reward_distribution(*self._archive.rewards(number))

        return await asyncio.to_thread(read)

    async def answers(self, number: int, order: AnswerOrder, limit: int, offset: int) -> dict[str, Any]:
        """Both answers to held-out prompts. The prompts come from the buffer; an erased one is null."""

        def read() -> AnswerPage:
            self._report(number)
            return self._archive.answers(number, order=order, limit=limit, offset=offset)

        page = await asyncio.to_thread(read)
        prompts = await self._store.read([row["prompt_id"] for row in page.rows])
        return insight.answers(page, {id: prompt_text(prompt) for id, prompt in prompts.items()})

    async def rollouts(self, limit: int) -> models.PastRollouts:
        async with self._folding:
            return models.PastRollouts(rollouts=await asyncio.to_thread(self._rollouts, limit))

    async def adapters(self) -> models.Adapters:
        def read() -> list[dict[str, Any]]:
            return [self._adapter(name) for name in self._adapters.names()]

        return models.Adapters(adapters=await asyncio.to_thread(read))

    async def adapter(self, name: str) -> dict[str, Any]:
        if name not in await asyncio.to_thread(self._adapters.names):
            raise not_found(f"there is no adapter {name[:80]!r}", "GET /v1/adapters lists them")
        return await asyncio.to_thread(self._adapter, name)

    async def audit(self, after: int, limit: int, *, full: bool) -> models.Audit:
        def read() -> models.Audit:
            entries = [_shown(entry, full) for entry in self._journal.page(after, limit)]
            return models.Audit(entries=entries, head=self._head())

        return await asyncio.to_thread(read)

    async def verification(self) -> models.Verification:
        """Check the whole hash chain. Whoever asks while it is being checked gets what that finds."""
        if self._verifying is None or self._verifying.done():
            self._verifying = asyncio.create_task(asyncio.to_thread(self._verify))
        return await asyncio.shield(self._verifying)

    def _verify(self) -> models.Verification:
        last = _EMPTY
        try:
            for head in heads(self._journal.rows()):
                last = models.Head(seq=head.seq, hash=head.hash)
        except JournalError as error:
            return models.Verification(entries=last.seq, head=last, problem=str(error))
        return models.Verification(entries=last.seq, head=last, problem=None)

    def _report(self, number: int) -> dict[str, Any]:
        report = self._archive.report(number)
        if not report:
            raise not_found(f"there is no round {number}", "GET /v1/rounds lists them")
        return report

    def _rollouts(self, limit: int) -> list[dict[str, Any]]:
        while page := self._journal.page(self._history.seq, _PAGE):
            for entry in page:
                self._history.add(entry)
        return self._history.latest(limit)

    def _head(self) -> models.Head:
        last = self._journal.last()
        return models.Head(seq=last.seq, hash=last.hash) if last else _EMPTY

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


def _shown(entry: Entry, full: bool) -> dict[str, Any]:
    shown = asdict(entry)
    if not full:
        del shown["state_after"]
    return shown
