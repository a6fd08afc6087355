"""The journal played again: every recorded event through the machine, against the state it was recorded with. Pure.

Each entry starts from the recorded state before it, so one that cannot be reproduced does not hide those after it; by
induction a journal without deviations is what the machine does from its first entry on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from tao_daemon.daemon.codec import decode_event, decode_state, encode_command
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import Policy, State
from tao_daemon.domain.events import DaemonStarted
from tao_daemon.registry.journal import Entry

_MOST_DEVIATIONS = 20
"""Deviations that are told one by one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides now: the machine's policy, and which configuration and version it is of."""

    policy: Policy
    config_digest: str
    version: str


@dataclass(frozen=True, slots=True)
class Deviation:
    """An entry that the machine does not reproduce."""

    seq: int
    event: str
    parts: tuple[str, ...]
    """What differs: names of the state's fields, or `commands`."""
    other_rules: bool
    """It was made under another configuration or version than the present one, so it may well differ."""


@dataclass(frozen=True, slots=True)
class JournalReplay:
    entries: int
    reproduced: int
    deviations: tuple[Deviation, ...] = ()
    """The first ones."""
    unexplained: int = 0
    """Deviations under the very rules that decide now."""


def replay(entries: Iterable[Entry], rules: Rules) -> JournalReplay:
    """Play `entries` again, the first of which is the journal's first. Raises JournalError for one that this
    version cannot read."""
    state, other_rules = State(), True
    count = reproduced = unexplained = 0
    deviations: list[Deviation] = []
    for entry in entries:
        event, recorded = decode_event(entry.event), decode_state(entry.state_after)
        if isinstance(event, DaemonStarted):
            other_rules = (event.config_digest, event.version) != (rules.config_digest, rules.version)
        transition = advance(state, event, rules.policy, entry.at)
        parts = _differing(recorded, transition.state)
        if [encode_command(command) for command in transition.commands] != list(entry.commands):
            parts = (*parts, "commands")
        count += 1
        reproduced += not parts
        unexplained += bool(parts) and not other_rules
        if parts and len(deviations) < _MOST_DEVIATIONS:
            deviations.append(Deviation(entry.seq, type(event).__name__, parts, other_rules))
        state = recorded
    return JournalReplay(count, reproduced, tuple(deviations), unexplained)


def _differing(one: State, other: State) -> tuple[str, ...]:
    return tuple(field.name for field in fields(State) if getattr(one, field.name) != getattr(other, field.name))
