"""The past as documents: rounds, rollouts, the audit log. Read from data_dir, which it never changes.

The daemon answers with them from threads, the command line reads them while the daemon is down: they are the same.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

from tao_daemon.control.explanation import explain, trend
from tao_daemon.control.history import RolloutHistory
from tao_daemon.control.insight import compare, reward_distribution
from tao_daemon.domain.errors import ArchiveError
from tao_daemon.domain.lifecycle import JournalHead
from tao_daemon.domain.report import AnswerOrder, AnswerPage
from tao_daemon.registry.chain import GENESIS, check
from tao_daemon.registry.journal_reader import ReadOnlyJournal
from tao_daemon.registry.round_archive import RoundArchive


class NoSuchRound(ArchiveError):
    """No round has that number, or retention took it."""


class Past:
    """Every method may be called from any thread, also while a round runs; each raises TaoError."""

    def __init__(self, archive: RoundArchive, journal: ReadOnlyJournal) -> None:
        self._archive = archive
        self._journal = journal
        self._history = RolloutHistory()
        self._folding = threading.Lock()
        """A reader whose caller went away goes on folding."""

    def rounds(self, limit: int, before: int | None = None) -> dict[str, Any]:
        """Reports of the newest rounds below `before`, oldest first."""
        return {"rounds": self._archive.reports(limit=limit, before=before)}

    def trend(self, limit: int) -> dict[str, Any]:
        return {"trend": trend(self._archive.reports(limit=limit))}

    def round(self, number: int) -> dict[str, Any]:
        """The report, and every criterion of its gate in words. Raises NoSuchRound, as all that take a number."""
        report = self._report(number)
        return {**report, "explanation": explain(report)}

    def comparison(self, left: int, right: int) -> dict[str, Any]:
        return compare(self._report(left), self._report(right))

    def rewards(self, number: int) -> dict[str, Any]:
        self._report(number)
        return reward_distribution(*self._archive.rewards(number))

    def answers(self, number: int, order: AnswerOrder, limit: int, offset: int) -> AnswerPage:
        """Both answers to held-out prompts, without the prompts: those are the buffer's."""
        self._report(number)
        return self._archive.answers(number, order=order, limit=limit, offset=offset)

    def rollouts(self, limit: int) -> dict[str, Any]:
        """Every rollout with its steps, the latest first."""
        with self._folding:
            self._history.catch_up(self._journal)
            return {"rollouts": self._history.latest(limit)}

    def audit(self, after: int, limit: int, *, full: bool) -> dict[str, Any]:
        """Entries in order, with the state after each when `full`, and the journal's head."""
        entries = [asdict(entry) for entry in self._journal.page(after, limit)]
        for entry in [] if full else entries:
            del entry["state_after"]
        last = self._journal.last()
        head = JournalHead(last.seq, last.hash) if last else JournalHead(0, GENESIS)
        return {"entries": entries, "head": asdict(head)}

    def verification(self) -> dict[str, Any]:
        """The whole hash chain, checked: good entries, the head of the last of them, the first problem."""
        head, problem = check(self._journal.rows())
        return {"entries": head.seq, "head": asdict(head), "problem": problem}

    def _report(self, number: int) -> dict[str, Any]:
        if report := self._archive.report(number):
            return report
        raise NoSuchRound(f"there is no round {number}")
