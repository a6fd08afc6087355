"""One task owns the state: it takes an event from the mailbox, advances, journals, then lets commands act.

start → (event → advance → journal → execute)* → stop
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao_daemon.clients.failpoints import reach
from tao_daemon.daemon.codec import decode_state, encode_command, encode_event, encode_state
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import Policy, State, Transition
from tao_daemon.domain.commands import Command
from tao_daemon.domain.events import DAEMON, Event
from tao_daemon.domain.ports import Clock
from tao_daemon.registry.journal import Entry, Journal, RequestKey

log = logging.getLogger(__name__)

Execute = Callable[[Command], None]
Listener = Callable[[Event, Transition], None]


@dataclass(frozen=True, slots=True)
class _Letter:
    event: Event
    expected: int | None
    """The generation of routes that the sender saw; with another one the event is refused."""
    request: RequestKey | None
    answer: asyncio.Future[Receipt] | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of an event that somebody submitted."""

    note: str
    refused: bool
    seq: int | None
    """Its entry in the journal; None when nothing was journaled."""
    replayed: bool = False
    """The same request was answered before, with just this; nothing was done now."""


class KeyReused(ValueError):
    """Another request was sent before under the same key."""


def apply_event(journal: Journal, state: State, event: Event, policy: Policy, now: float) -> Transition:
    """One journaled transition. Also how the command line undoes a rollout while the daemon is down."""
    return _apply(journal, state, event, policy, now, None)[0]


def _apply(
    journal: Journal, state: State, event: Event, policy: Policy, now: float, request: RequestKey | None
) -> tuple[Transition, Entry]:
    transition = advance(state, event, policy, now)
    entry = journal.append(
        at=now,
        event=encode_event(event),
        state_after=encode_state(transition.state),
        commands=[encode_command(command) for command in transition.commands],
        actor=getattr(event, "actor", DAEMON),
        note=transition.note,
        request=request,
        refused=transition.refused,
    )
    return transition, entry


def last_state(journal: Journal) -> State:
    """The state after the newest entry; a fresh one for an empty journal."""
    entry = journal.last()
    return decode_state(entry.state_after) if entry else State()


class Supervisor:
    """The mailbox and its only reader."""

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        *,
        execute: Execute,
        clock: Clock,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._execute = execute
        self._clock = clock
        self._listeners = tuple(listeners)
        self._mailbox: asyncio.Queue[_Letter] = asyncio.Queue()
        self._state = last_state(journal)

    @property
    def state(self) -> State:
        return self._state

    @property
    def waiting(self) -> int:
        """Events in the mailbox."""
        return self._mailbox.qsize()

    def post(self, event: Event) -> None:
        """Tell without waiting. Only from the event loop's thread."""
        self._mailbox.put_nowait(_Letter(event, None, None, None))

    async def submit(
        self, event: Event, expected_generation: int | None = None, request: RequestKey | None = None
    ) -> Receipt:
        """Tell, and wait until it is journaled and its commands were handed on.

        With `expected_generation`, the event is refused, and not journaled, when the routes have moved on since the
        sender looked: two people who promote at once promote one step. With `request`, what was answered before
        under the same key is answered again and nothing is done; raises KeyReused when it asked for something else.
        """
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._mailbox.put_nowait(_Letter(event, expected_generation, request, answer))
        return await answer

    async def run(self) -> None:
        """Serve the mailbox until cancelled. A failure to journal propagates: nothing may act unrecorded."""
        while True:
            letter = await self._mailbox.get()
            try:
                receipt = self._open(letter)
            except KeyReused as error:
                if letter.answer and not letter.answer.done():
                    letter.answer.set_exception(error)
                continue
            if letter.answer and not letter.answer.done():
                letter.answer.set_result(receipt)

    def _open(self, letter: _Letter) -> Receipt:
        if letter.request and (earlier := self._journal.answered(letter.request.key)):
            if earlier.digest != letter.request.digest:
                raise KeyReused("another request was sent before under this key; use a new key for a new request")
            return Receipt(earlier.note, earlier.refused, earlier.seq, replayed=True)
        present = self._state.routes.generation
        if letter.expected not in (None, present):
            note = f"the routes are at generation {present}, not {letter.expected}: look again, nothing was done"
            return Receipt(note, True, None)
        transition, entry = self._process(letter.event, letter.request)
        return Receipt(transition.note, transition.refused, entry.seq)

    def _process(self, event: Event, request: RequestKey | None) -> tuple[Transition, Entry]:
        now = self._clock()
        transition, entry = _apply(self._journal, self._state, event, self._policy, now, request)
        self._state = transition.state
        reach(f"journaled.{type(event).__name__}")
        log.info(transition.note or type(event).__name__, extra={"event_type": type(event).__name__})
        for command in transition.commands:
            self._execute(command)
        for listener in self._listeners:
            listener(event, transition)
        return transition, entry
