"""The supervisor: journaled first, then done; and the journal replays to the same state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tao_daemon.daemon.codec import decode_event, decode_state, encode_command
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import Supervisor, last_state
from tao_daemon.domain.commands import Command
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.events import (
    AdapterVerified,
    CandidateJudged,
    DaemonStarted,
    Event,
    PhaseCompleted,
    RolloutPromoted,
    RoundClosed,
    RoundRequested,
    UndoRequested,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.round import Phase
from tao_daemon.registry.journal import Journal
from tests.machine_plays import AUTO, a_round, pairs, traffic

POLICY = AUTO
HISTORY: list[Event] = [
    DaemonStarted("1"),
    RoundRequested("500 prompts wait"),
    *(PhaseCompleted(1, 1, phase) for phase in (Phase.CLAIMING, Phase.SAMPLING, Phase.SCORING)),
    PhaseCompleted(1, 1, Phase.TRAINING, "a"),
    CandidateJudged(1, 1, Decision.PASS, "gain +0.4 [+0.3, +0.5]"),
    AdapterVerified("a", 1, "0.01 nats"),
    pairs("a", 60, 0.05),
    traffic("a"),
    RoundClosed(1),
    UndoRequested("ann", "users complain"),
]


class Seen:
    """What was executed, and how many entries the journal held at that moment."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.commands: list[Command] = []

    def __call__(self, command: Command) -> None:
        last = self._journal.last()
        assert last is not None
        assert encode_command(command) in last.commands, "a command acts only after its entry is written"
        self.commands.append(command)


async def play(journal: Journal, events: list[Event]) -> tuple[State, Seen]:
    ticks = iter(range(1000))
    seen = Seen(journal)
    supervisor = Supervisor(journal, POLICY, execute=seen, clock=lambda: float(next(ticks)))
    running = asyncio.create_task(supervisor.run())
    for event in events:
        await asyncio.wait_for(supervisor.submit(event), 5)
    running.cancel()
    return supervisor.state, seen


async def test_commands_act_only_after_the_journal_holds_them(tmp_path: Path) -> None:
    _, seen = await play(Journal(tmp_path / "control.db"), HISTORY)
    assert len(seen.commands) > len(HISTORY) // 2


async def test_the_journal_replays_to_the_same_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "control.db")
    state, _ = await play(journal, HISTORY)
    replayed = State()
    for entry in journal.entries():
        replayed = advance(replayed, decode_event(entry.event), POLICY, entry.at).state
        assert replayed == decode_state(entry.state_after)
    assert replayed == state
    assert journal.verify() == len(HISTORY)


async def test_a_new_process_carries_on_from_the_last_entry(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    first = Journal(path)
    state, _ = await play(first, HISTORY[:4])
    first.close()
    assert last_state(Journal(path)) == state


async def test_who_and_why_are_recorded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "control.db")
    await play(journal, HISTORY)
    last = journal.last()
    assert last is not None
    assert last.actor == "ann"
    assert "users complain" in last.note


async def test_nothing_acts_when_the_journal_cannot_be_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "control.db")
    done: list[Command] = []
    supervisor = Supervisor(journal, POLICY, execute=done.append, clock=lambda: 0.0)
    journal._db.execute("PRAGMA query_only=ON")
    supervisor.post(RoundRequested("go"))
    with pytest.raises(JournalError, match="cannot write"):
        await asyncio.wait_for(supervisor.run(), 5)
    assert done == []


async def test_an_event_for_other_routes_than_the_sender_saw_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "control.db")
    supervisor = Supervisor(journal, POLICY, execute=lambda command: None, clock=lambda: 1.0)
    running = asyncio.create_task(supervisor.run())
    for event in [*a_round(1, "a"), AdapterVerified("a", 1)]:
        await supervisor.submit(event)
    seen = supervisor.state.routes.generation
    twice = [supervisor.submit(RolloutPromoted(name, "x"), seen) for name in ("ann", "bob")]
    first, second = await asyncio.wait_for(asyncio.gather(*twice), 5)
    running.cancel()
    assert (first.refused, second.refused) == (False, True)
    assert "look again" in second.note
    assert supervisor.state.rollout is not None
    assert supervisor.state.rollout.step == 0, "one step and not two"
