"""The journal played again: reproduced where nothing was touched, and named where something was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.daemon.replaying import Deviation, JournalReplay, Rules, replay
from tao_daemon.daemon.state import Policy, State
from tao_daemon.daemon.supervisor import apply_event
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.events import AdapterVerified, DaemonStarted, Event, RoundRequested, UndoRequested
from tao_daemon.registry.journal import Entry, Journal
from tests.machine_plays import AUTO, a_round, pairs, policy, settling, traffic

RULES = Rules(AUTO, config_digest="digest", version="1")
HISTORY: list[Event] = [
    DaemonStarted("1", "digest"),
    *settling(1, "a"),
    *a_round(2, "b"),
    AdapterVerified("b", 1, "0.01 nats"),
    pairs("b", 60, 0.05),
    traffic("b"),
    RoundRequested("500 prompts wait"),
    DaemonStarted("1", "digest"),
    UndoRequested("ann", "users complain"),
]


def journal_of(directory: Path, events: Sequence[Event], rules: Policy = AUTO) -> list[Entry]:
    with closing(Journal(directory / "control.db")) as journal:
        state = State()
        for number, event in enumerate(events):
            state = apply_event(journal, state, event, rules, float(number)).state
        return list(journal.entries())


def altered(entry: Entry, **state: Any) -> Entry:
    return replace(entry, state_after={**entry.state_after, **state})


def test_an_untouched_journal_is_reproduced(tmp_path: Path) -> None:
    entries = journal_of(tmp_path, HISTORY)
    assert replay(entries, RULES) == JournalReplay(len(HISTORY), len(HISTORY))
    assert replay([], RULES) == JournalReplay(0, 0)


def test_a_state_that_the_machine_would_not_reach_is_named(tmp_path: Path) -> None:
    entries = journal_of(tmp_path, HISTORY)
    last = entries[-1]
    found = replay([*entries[:-1], altered(last, next_round=99)], RULES)
    assert found.deviations == (Deviation(last.seq, "UndoRequested", ("next_round",), other_rules=False),)
    assert (found.reproduced, found.unexplained) == (len(HISTORY) - 1, 1)


def test_commands_that_were_touched_are_named_and_hide_nothing_after(tmp_path: Path) -> None:
    entries = journal_of(tmp_path, HISTORY)
    first = replace(entries[0], commands=[])
    found = replay([first, *entries[1:-1], altered(entries[-1], next_round=99)], RULES)
    assert [(each.seq, each.parts) for each in found.deviations] == [
        (1, ("commands",)),
        (len(entries), ("next_round",)),
    ]


@pytest.mark.parametrize("present", [Rules(AUTO, "other", "1"), Rules(AUTO, "digest", "2")])
def test_what_other_rules_decided_is_reported_as_such(tmp_path: Path, present: Rules) -> None:
    started = DaemonStarted("1", "digest")
    # One restart fewer is allowed now, so the round would have failed by the last of them.
    entries = journal_of(tmp_path, [started, RoundRequested("go"), started, started])
    found = replay(entries, replace(present, policy=replace(AUTO, max_attempts=2)))
    (deviation,) = found.deviations
    assert (deviation.seq, deviation.event, deviation.other_rules) == (4, "DaemonStarted", True)
    assert {"round", "closing", "commands"} <= set(deviation.parts)
    assert found.unexplained == 0


def test_a_deviation_under_the_present_rules_is_not_explained_away(tmp_path: Path) -> None:
    entries = journal_of(tmp_path, HISTORY, policy(fractions=(0.9,)))
    found = replay(entries, RULES)
    assert found.unexplained == len(found.deviations) > 0


def test_entries_before_versions_told_their_config_count_as_other_rules(tmp_path: Path) -> None:
    entries = journal_of(tmp_path, [DaemonStarted("1"), *HISTORY[1:3]])
    older = replace(entries[0], event={"type": "DaemonStarted", "version": "1"})
    assert replay([older, *entries[1:]], RULES).reproduced == len(entries)
    found = replay([older, *entries[1:-1], altered(entries[-1], next_round=99)], RULES)
    assert (len(found.deviations), found.unexplained) == (1, 0)


def test_many_deviations_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    entries = [replace(e, commands=["x"]) for e in journal_of(tmp_path, [DaemonStarted("1", "digest")] * 50)]
    found = replay(entries, RULES)
    assert (found.entries, found.reproduced, found.unexplained, len(found.deviations)) == (50, 0, 50, 20)


def test_an_entry_that_this_version_cannot_read_is_an_error(tmp_path: Path) -> None:
    entries = journal_of(tmp_path, HISTORY[:2])
    with pytest.raises(JournalError, match="unknown type 'Tomorrow'"):
        replay([replace(entries[0], event={"type": "Tomorrow"})], RULES)
