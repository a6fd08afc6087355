"""The journal: durable, chained, and telling when it was touched."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tao_daemon.domain.errors import JournalError
from tao_daemon.registry.journal import Journal


def fill(path: Path, count: int) -> None:
    journal = Journal(path)
    for number in range(count):
        journal.append(
            at=float(number),
            event={"type": "E", "n": number},
            state_after={"n": number},
            commands=[],
            actor="ann",
            note="why",
        )
    journal.close()


def tamper(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)


def test_entries_come_back_in_order_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 3)
    fill(path, 2)
    journal = Journal(path)
    assert [entry.seq for entry in journal.entries()] == [1, 2, 3, 4, 5]
    assert [entry.event["n"] for entry in journal.entries(after=3)] == [0, 1]
    last = journal.last()
    assert last is not None
    assert last.state_after == {"n": 1}
    assert journal.verify() == 5


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE journal SET actor = 'mallory' WHERE seq = 2", "entry 2 was changed"),
        ("UPDATE journal SET state_after = '{\"n\":9}' WHERE seq = 3", "entry 3 was changed"),
        ("DELETE FROM journal WHERE seq = 2", "entry 2 is missing"),
        ("UPDATE journal SET prev_hash = hash WHERE seq = 3", "entry 3 does not follow"),
        ("DELETE FROM journal WHERE seq = 1", "entry 1 is missing"),
    ],
)
def test_a_touched_row_is_named(tmp_path: Path, sql: str, named: str) -> None:
    path = tmp_path / "control.db"
    fill(path, 4)
    tamper(path, sql)
    with pytest.raises(JournalError, match=named):
        Journal(path).verify()


def test_a_reader_can_look_while_the_owner_writes(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 1)
    owner, reader = Journal(path), Journal(path)
    owner.append(at=9.0, event={"type": "E"}, state_after={}, commands=[], actor="ann", note="")
    assert reader.verify() == 2


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 1)
    tamper(path, "PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="newer version"):
        Journal(path)


def test_what_is_not_a_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.write_text("this is no database, but it is long enough to be read as a header by SQLite" * 20)
    with pytest.raises(JournalError, match=r"control\.db"):
        Journal(path)
