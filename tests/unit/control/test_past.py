"""The past as documents, from what lies on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.control.past import NoSuchRound, Past
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.report import AnswerOrder
from tao_daemon.registry.chain import GENESIS
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.journal_reader import ReadOnlyJournal
from tao_daemon.registry.round_archive import RoundArchive
from tests.machine_plays import AUTO, settling

ADAPTERS = [f"a{number}" for number in range(1, 5)]


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """A journal in which every adapter settled, and the report of round 1."""
    journal, state = Journal(tmp_path / "control.db"), State()
    for number, adapter in enumerate(ADAPTERS, start=1):
        for at, event in enumerate(settling(number, adapter)):
            state = apply_event(journal, state, event, AUTO, 1000.0 * number + at).state
    journal.close()
    archive = RoundArchive(tmp_path / "rounds")
    archive.update_report(1, {"outcome": "failed", "outcome_reason": "no prompts"})
    return Past(archive, ReadOnlyJournal(tmp_path / "control.db"))


def names(rollouts: dict[str, Any]) -> list[str]:
    return [each["adapter"] for each in rollouts["rollouts"]]


def test_rollouts_are_folded_once_whoever_asks_at_once(past: Past) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: past.rollouts(10), range(16)))
    assert all(names(each) == ADAPTERS[::-1] for each in found)
    assert all(each == found[0] for each in found)
    assert names(past.rollouts(1)) == ADAPTERS[-1:]


def test_rollouts_catch_up_with_what_is_added(past: Past, tmp_path: Path) -> None:
    past.rollouts(10)
    journal = Journal(tmp_path / "control.db")
    state = last_state(journal)
    for event in settling(len(ADAPTERS) + 1, "newest"):
        state = apply_event(journal, state, event, AUTO, 9000.0).state
    journal.close()
    assert names(past.rollouts(2)) == ["newest", ADAPTERS[-1]]


def test_a_round_that_is_not_there_is_named(past: Past) -> None:
    assert past.round(1)["outcome"] == "failed"
    reads = (
        lambda: past.round(7),
        lambda: past.rewards(7),
        lambda: past.comparison(1, 7),
        lambda: past.answers(7, AnswerOrder.GAINS, 1, 0),
    )
    for read in reads:
        with pytest.raises(NoSuchRound, match="there is no round 7"):
            read()


def test_the_audit_log_is_told_with_its_head(past: Past, tmp_path: Path) -> None:
    short = past.audit(2, 3, full=False)
    assert [entry["seq"] for entry in short["entries"]] == [3, 4, 5]
    assert "state_after" not in short["entries"][0]
    assert past.audit(2, 1, full=True)["entries"][0]["state_after"]
    verified = past.verification()
    assert verified["head"] == short["head"]
    assert verified["problem"] is None
    Journal(tmp_path / "empty.db").close()
    empty = Past(RoundArchive(tmp_path / "none"), ReadOnlyJournal(tmp_path / "empty.db"))
    assert empty.audit(0, 9, full=True) == {"entries": [], "head": {"seq": 0, "hash": GENESIS}}
    assert empty.verification() == {"entries": 0, "head": {"seq": 0, "hash": GENESIS}, "problem": None}
