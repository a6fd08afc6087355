"""The journal: durable, chained, and telling when it was touched."""

from __future__ import annotations

import io
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.lifecycle import JournalHead
from tao_daemon.registry import chain
from tao_daemon.registry.chain import check, heads
from tao_daemon.registry.export import FORMATS, read_rows, write_rows
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.journal_reader import ReadOnlyJournal


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


COLUMNS = {
    "seq": "9",
    "at": "9.5",
    "event": '\'{"n":9,"type":"E"}\'',
    "state_after": "'{\"n\":9}'",
    "commands": "'[1]'",
    "actor": "'mallory'",
    "note": "'another reason'",
    "prev_hash": f"'{'a' * 64}'",
    "hash": f"'{'b' * 64}'",
}
UNREADABLE = ("x'ff'", "CAST(x'ff' AS TEXT)", "9e999", "''", "'['", "'{\"n\": 1}'")


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_of_a_row_is_covered(tmp_path: Path, column: str) -> None:
    path = tmp_path / "control.db"
    fill(path, 5)
    tamper(path, f"UPDATE journal SET {column} = {COLUMNS[column]} WHERE seq = 3")
    with pytest.raises(JournalError, match=r"entry 3 (was changed|is missing|does not follow)"):
        Journal(path).verify()


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize("column", ["at", "event", "state_after", "commands", "actor", "note", "hash"])
def test_what_cannot_even_be_read_is_named_and_no_crash(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "control.db"
    fill(path, 5)
    tamper(path, f"UPDATE journal SET {column} = {value} WHERE seq = 3")
    for rows in (lambda: Journal(path).verify(), lambda: list(heads(ReadOnlyJournal(path).rows()))):
        with pytest.raises(JournalError, match="entry 3 was changed"):
            rows()


def test_two_rows_that_changed_places_are_named(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 5)
    for old, new in ((3, 99), (4, 3), (99, 4)):
        tamper(path, f"UPDATE journal SET seq = {new} WHERE seq = {old}")
    with pytest.raises(JournalError, match="entry 3 does not follow entry 2"):
        Journal(path).verify()


def rewrite(path: Path, since: int, until: int) -> None:
    """What somebody does who knows how the chain is made: another past, consistent again."""
    with sqlite3.connect(path) as db:
        kept = list(db.execute(f"SELECT {', '.join(chain.COLUMNS)} FROM journal ORDER BY seq"))
        db.execute("DELETE FROM journal")
        prev = chain.GENESIS
        for seq, at, event, state, commands, actor, note, _, _ in kept[:until]:
            content = (seq, at, event, state, commands, "mallory" if seq >= since else actor, note, prev)
            prev = chain.digest(content)
            db.execute("INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?)", (*content, prev))


def test_a_chain_is_checked_to_its_last_good_entry(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 4)
    third, fourth = told(path, 3, 4)
    assert check(ReadOnlyJournal(path).rows(), [third]) == (fourth, None)
    assert check([]) == (JournalHead(0, chain.GENESIS), None)
    assert check([], [JournalHead(0, chain.GENESIS)])[1] is None, "what an empty journal printed as its head"
    tamper(path, "UPDATE journal SET actor = 'mallory' WHERE seq = 4")
    head, problem = check(ReadOnlyJournal(path).rows(), [fourth])
    assert head == third
    assert problem is not None
    assert "entry 4 was changed" in problem


def test_entries_are_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "control.db"
    fill(path, 5)
    monkeypatch.setattr("tao_daemon.registry.journal_reader._PAGE", 2)
    reader = ReadOnlyJournal(path)
    assert [entry.seq for entry in reader.entries()] == [1, 2, 3, 4, 5]
    assert [entry.seq for entry in reader.entries(3)] == [4, 5]
    assert list(reader.entries(5)) == []


def told(path: Path, *places: int) -> list[JournalHead]:
    return [head for head in heads(ReadOnlyJournal(path).rows()) if head.seq in places]


def contradiction(path: Path, published: list[JournalHead]) -> str | None:
    return check(ReadOnlyJournal(path).rows(), published)[1]


@pytest.mark.parametrize(
    ("since", "until", "named"),
    [
        (9, 4, "entry 6 was published, but the journal ends at entry 4"),
        (1, 6, "rewritten between entry 1 and entry 2"),
        (4, 6, "entry 2 is as published, so the journal was rewritten between entry 3 and entry 6"),
        (6, 6, "rewritten between entry 3 and entry 6"),
    ],
)
def test_a_chain_that_was_made_whole_again_shows_against_published_heads(
    tmp_path: Path, since: int, until: int, named: str
) -> None:
    path = tmp_path / "control.db"
    fill(path, 6)
    published = told(path, 2, 6)
    assert contradiction(path, published) is None
    rewrite(path, since, until)
    assert Journal(path).verify() == until, "nothing but a published head tells"
    problem = contradiction(path, published[::-1])
    assert problem is not None
    assert named in problem


def test_a_head_may_be_given_by_its_first_digits(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 3)
    (head,) = told(path, 2)
    assert contradiction(path, [JournalHead(2, head.hash[:12])]) is None


def test_an_unreadable_row_is_named_to_whoever_looks(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 3)
    tamper(path, "UPDATE journal SET event = '[]' WHERE seq = 3")
    for look in (Journal(path).last, ReadOnlyJournal(path).last):
        with pytest.raises(JournalError, match="entry 3 cannot be read"):
            look()


def test_the_reader_sees_what_the_owner_wrote_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    fill(path, 3)
    owner, reader = Journal(path), ReadOnlyJournal(path)
    fresh = owner.append(at=9.0, event={"type": "E"}, state_after={}, commands=[], actor="ann", note="")
    assert reader.last() == fresh
    assert reader.get(4) == fresh
    assert reader.get(5) is None
    assert [entry.seq for entry in reader.page(1, 2)] == [2, 3]
    assert [entry.seq for entry in reader.newest_first()] == [4, 3, 2, 1]
    owner.close()
    before = path.read_bytes()
    assert [row[0] for row in reader.rows()] == [1, 2, 3, 4]
    assert path.read_bytes() == before


@pytest.fixture
def medium() -> Iterator[Path]:
    """A directory in which this process may read and not write, even when it is root's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "control.db", 3)
        (folder / "control.db").chmod(0o444)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(user)
        folder.chmod(0o700)


def test_a_copy_is_read_where_nobody_can_write(medium: Path) -> None:
    with pytest.raises(OSError, match="denied"):
        (medium / "new").touch()
    assert [row[0] for row in ReadOnlyJournal(medium / "control.db").rows()] == [1, 2, 3]


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_verified_without_the_database(tmp_path: Path, form: str) -> None:
    path = tmp_path / "control.db"
    journal = Journal(path)
    for number, note in enumerate(['quotes " and, commas', "lines\nand\r\nmore", "Ünïcode 漢字", "", "1e5"]):
        journal.append(
            at=1763840000.123456 + number / 3,
            event={"type": "E", "x": 0.1 + number, "nested": {"b": [1, None, True], "a": 1e300}},
            state_after={"n": number},
            commands=[{"type": "C"}],
            actor="ann",
            note=note,
        )
    rows = list(ReadOnlyJournal(path).rows())
    file = io.StringIO(newline="")
    assert list(write_rows(rows, file, form)) == rows
    read = list(read_rows(io.StringIO(file.getvalue(), newline=""), "audit"))
    assert read == rows
    assert [head.seq for head in heads(read)] == [1, 2, 3, 4, 5]
    forged = file.getvalue().replace("ann", "zoe", 4).replace("zoe", "ann", 3)
    with pytest.raises(JournalError, match="entry 4 was changed"):
        list(heads(read_rows(io.StringIO(forged, newline=""), "audit")))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("value", UNREADABLE)
def test_a_broken_chain_is_exported_as_it_is(tmp_path: Path, form: str, value: str) -> None:
    path = tmp_path / "control.db"
    fill(path, 4)
    tamper(path, f"UPDATE journal SET note = {value}, event = {value} WHERE seq = 3")
    file = io.StringIO(newline="")
    assert len(list(write_rows(ReadOnlyJournal(path).rows(), file, form))) == 4
    with pytest.raises(JournalError, match="entry 3 was changed"):
        list(heads(read_rows(io.StringIO(file.getvalue(), newline=""), "audit")))


@pytest.mark.parametrize("text", ["not json\n", '{"seq": 1}\n', "[]\n", "seq,at\n1,2\n"])
def test_a_file_that_is_no_export_is_told_by_line(text: str) -> None:
    with pytest.raises(JournalError, match="line 1 of audit"):
        list(read_rows(io.StringIO(text), "audit"))
