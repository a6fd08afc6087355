"""Progress and decisions while they happen: what GET /v1/events streams.

Transitions come from the journal, so a reader that was away goes on where it stopped and misses none; progress is a
sample, at most two a second. A slow reader holds up nobody: everyone reads at their own pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from tao_daemon.daemon.progress import PhaseProgress
from tao_daemon.domain.journal import JournalEntry, JournalReader
from tao_daemon.domain.signals import PhaseProgressed, Signal

_PAGE = 200
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the stream; `id` is a journal entry's number, None for progress."""

    kind: str
    id: int | None
    data: dict[str, Any]


class LiveFeed:
    """Wakes its readers. `nudge` belongs to the event loop's thread; signals come from any."""

    def __init__(self, journal: JournalReader, progress: Callable[[], PhaseProgress | None]) -> None:
        self._journal = journal
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._transitions = 0
        self._tick = asyncio.Event()
        self._closed = False

    def __call__(self, signal: Signal) -> None:
        if isinstance(signal, PhaseProgressed):
            self._loop.call_soon_threadsafe(self._wake)

    def nudge(self) -> None:
        """A transition was journaled."""
        self._transitions += 1
        self._wake()

    def close(self) -> None:
        """Every stream ends."""
        self._closed = True
        self._wake()

    async def start(self, after: int | None) -> int:
        """The journal entry after which a reader goes on: `after`, or the last one there is now.

        An entry that is not there yet is one of a journal that a backup replaced: from now on, too.

        Raises JournalError.
        """
        head = await asyncio.to_thread(self._head)
        return head if after is None else min(after, head)

    async def follow(self, cursor: int) -> AsyncIterator[Happening]:
        """Everything after journal entry `cursor`; ends with the daemon. Raises JournalError."""
        seen = -1
        told: dict[str, Any] | None = None
        while not self._closed:
            tick = self._tick
            while seen != self._transitions:
                seen = self._transitions
                while entries := await asyncio.to_thread(self._journal.page, cursor, _PAGE):
                    for entry in entries:
                        yield _transition(entry)
                    cursor = entries[-1].seq
            if (progress := _progress(self._progress())) != told:
                told = progress
                if progress is not None:
                    yield Happening("progress", None, progress)
                    await asyncio.sleep(_PROGRESS_SECONDS)
            await tick.wait()

    def _wake(self) -> None:
        tick, self._tick = self._tick, asyncio.Event()
        tick.set()

    def _head(self) -> int:
        last = self._journal.last()
        return last.seq if last else 0


def _transition(entry: JournalEntry) -> Happening:
    data = {"seq": entry.seq, "at": entry.at, "type": entry.event["type"], "actor": entry.actor, "note": entry.note}
    return Happening("transition", entry.seq, data)


def _progress(now: PhaseProgress | None) -> dict[str, Any] | None:
    if now is None:
        return None
    left = round(now.seconds_left, 1) if now.seconds_left is not None else None
    return {
        "round": now.round,
        "phase": now.phase.value,
        "done": now.done,
        "total": now.total,
        "fraction": round(now.fraction, 4),
        "seconds_left": left,
        "held": now.held,
    }
