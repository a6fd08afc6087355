"""Tells one sink everything it wants to know, in order, at least once, however long the sink is away.

Invariants: what is told is read from the journal again, so nothing waits in memory; the cursor moves only after
delivery; a sink that fails holds up nobody but itself; an event that is refused for good is counted and skipped.

start → (nudge → read on → deliver, again and again until it is taken or refused → move the cursor)* → stop
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import stamina

from tao_daemon.clients.failpoints import reach
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.journal import JournalEntry, JournalReader
from tao_daemon.domain.lifecycle import JournalHead
from tao_daemon.domain.signals import Emit, NotificationLag, NotificationSent
from tao_daemon.notification.cloud_event import CloudEvent, cloud_events, is_wanted
from tao_daemon.notification.cursor import Cursor
from tao_daemon.notification.lifecycle import State
from tao_daemon.notification.sinks import Refused, Sink, Undelivered

log = logging.getLogger(__name__)

_PAGE = 50
"""Entries in memory at once."""
_QUIET = 500
"""Entries of which nothing was told before the cursor moves all the same: so many are read again after a restart."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pauses:
    """Between attempts at one event: growing from the first to the longest, jittered, for ever."""

    first_seconds: float = 0.5
    longest_seconds: float = 60.0


PATIENT = Pauses()


class Notifier:
    """`run` as a task, `nudge` whenever the journal grew, `finish` before the end."""

    def __init__(
        self,
        sink: Sink,
        journal: JournalReader,
        cursor: Cursor,
        *,
        source: str,
        types: Sequence[str],
        emit: Emit,
        pauses: Pauses = PATIENT,
    ) -> None:
        self._sink = sink
        self._journal = journal
        self._cursor = cursor
        self._source = source
        self._types = tuple(types)
        self._emit = emit
        self._pauses = pauses
        self._told = self._noted = cursor.start(journal)
        self._wake = asyncio.Event()
        self._wake.set()
        self._finishing = False

    def nudge(self) -> None:
        """The journal grew. Only from the event loop's thread."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled, or `finish`ed."""
        before = await self._insist(self._state_told)
        await self._measure()
        while not self._finishing:
            await self._wake.wait()
            self._wake.clear()
            before = await self._read_on(before)
        await self._note()

    def finish(self) -> None:
        """Tell what is there and end. Whoever waits for `run` has a deadline, and cancels it then."""
        self._finishing = True
        self._wake.set()

    async def _read_on(self, before: State) -> State:
        """Tell every entry there is; the state after the last one."""
        while page := await self._insist(lambda: self._journal.page(self._told.seq, _PAGE)):
            for entry in page:
                await self._tell(entry, before)
                before = entry.state_after
        self._emit(NotificationLag(self._sink.name, 0))
        return before

    async def _tell(self, entry: JournalEntry, before: State) -> None:
        events = self._events(entry, before)
        for event in events:
            await self._deliver(event)
            reach(f"notified.{self._sink.name}")
        self._told = JournalHead(entry.seq, entry.hash)
        if events or self._told.seq - self._noted.seq >= _QUIET:
            await self._note()

    def _events(self, entry: JournalEntry, before: State) -> list[CloudEvent]:
        try:
            return [event for event in cloud_events(entry, before, self._source) if is_wanted(event, self._types)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # An entry of another version must not keep the daemon from starting ever again.
            log.error("journal entry cannot be told", extra={"seq": entry.seq, "error": repr(error)})
            self._emit(NotificationSent(self._sink.name, "refused"))
            return []

    async def _deliver(self, event: CloudEvent) -> None:
        async for attempt in stamina.retry_context(
            on=_pause,
            attempts=None,
            timeout=None,
            wait_initial=self._pauses.first_seconds,
            wait_max=self._pauses.longest_seconds,
            wait_jitter=self._pauses.first_seconds,
        ):
            with attempt:
                await self._attempt(event)

    async def _attempt(self, event: CloudEvent) -> None:
        name = self._sink.name
        try:
            await self._sink.deliver(event)
        except Refused as error:
            log.error("notification refused", extra={"sink": name, "event_id": event["id"], "error": str(error)})
            self._emit(NotificationSent(name, "refused"))
        except Undelivered:
            self._emit(NotificationSent(name, "failed"))
            await self._measure()
            raise
        else:
            self._emit(NotificationSent(name, "delivered"))

    async def _measure(self) -> None:
        last = await self._insist(self._journal.last)
        self._emit(NotificationLag(self._sink.name, last.seq - self._told.seq if last else 0))

    async def _note(self) -> None:
        if self._noted != self._told:
            self._noted = self._told
            await asyncio.to_thread(self._cursor.move, self._told)

    def _state_told(self) -> State:
        entry = self._journal.get(self._told.seq)
        return entry.state_after if entry else {}

    async def _insist(self, read: Callable[[], T]) -> T:
        """Read the journal in a thread, until it can be read."""
        async for attempt in stamina.retry_context(
            on=JournalError, attempts=None, timeout=None, wait_max=self._pauses.longest_seconds
        ):
            with attempt:
                return await asyncio.to_thread(read)
        raise AssertionError("stamina ends by a result or by an error")


def _pause(error: Exception) -> bool | float:
    """Again after a pause that grows, or after the one that was asked for."""
    if not isinstance(error, Undelivered):
        return False
    return error.pause_seconds or True
