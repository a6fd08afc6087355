"""`tao-daemon audit`: readable, verifiable, and naming what was touched, with no daemon about."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tao_daemon.cli.audit import command
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.events import DaemonStarted, Event, UndoRequested
from tao_daemon.notification.cloud_event import cloud_events, encode
from tao_daemon.registry.journal import Journal
from tests.machine_plays import AUTO, settling

LIFE: tuple[Event, ...] = (
    DaemonStarted("1"),
    *settling(1, "a1"),
    UndoRequested("bob", "longer\x1b[31m answers\n     1 approved"),
)

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose journal has ten entries, and the events that they told."""
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "config.toml").write_text(f'[daemon]\ndata_dir = "{folder}"\n')
    journal, state = Journal(folder / "control.db"), State()
    for number, event in enumerate(LIFE):
        state = apply_event(journal, state, event, AUTO, 1763840000.0 + number).state
    before: Any = {}
    with (tmp_path / "events.jsonl").open("wb") as file:
        for entry in journal.entries():
            file.writelines(encode(event) + b"\n" for event in cloud_events(entry, before, "tao-daemon"))
            before = entry.state_after
    journal.close()
    return folder


@pytest.fixture
def run(data: Path) -> Run:
    def invoke(name: str, *arguments: str) -> Result:
        options = ["--config", str(data.parent / "config.toml")]
        return CliRunner().invoke(command, [name, *options, *arguments])

    return invoke


def tamper(data: Path, *statements: str) -> None:
    with sqlite3.connect(data / "control.db") as db:
        for sql in statements:
            db.execute(sql)


def numbers(result: Result) -> list[int]:
    return [int(line.split()[0]) for line in result.stdout.splitlines()]


def test_a_whole_chain_and_its_head(run: Run) -> None:
    result = run("verify")
    assert result.exit_code == 0
    assert f"{len(LIFE)} entries, the chain is whole; its head is {len(LIFE)}:" in result.stdout
    head = result.stdout.split()[-1]
    assert run("verify", "--head", head).exit_code == 0
    assert run("verify", "--head", head[:15]).exit_code == 0
    found = json.loads(run("verify", "--json").stdout)
    assert found == {
        "entries": len(LIFE),
        "head": {"seq": len(LIFE), "hash": head.split(":")[1]},
        "published": 0,
        "problem": None,
    }


def test_a_changed_row_is_named_with_exit_code_1(run: Run, data: Path) -> None:
    tamper(data, "UPDATE journal SET note = 'nothing to see' WHERE seq = 4")
    result = run("verify")
    assert result.exit_code == 1
    assert "entry 4 was changed" in result.stderr
    assert json.loads(run("verify", "--json").stdout)["problem"] == "journal entry 4 was changed after it was written"


def test_events_tell_of_a_cut_end(run: Run, data: Path) -> None:
    events = str(data.parent / "events.jsonl")
    assert run("verify", "--events", events).exit_code == 0
    tamper(data, f"DELETE FROM journal WHERE seq = {len(LIFE)}")
    assert run("verify").exit_code == 0, "whole, as far as it goes"
    result = run("verify", "--events", events)
    assert result.exit_code == 1
    assert f"entry {len(LIFE)} was published, but the journal ends at entry {len(LIFE) - 1}" in result.stderr


def test_events_tell_of_a_rewritten_chain(run: Run, data: Path, tmp_path: Path) -> None:
    """The same life with other reasons, in a journal of its own: consistent from the first row on."""
    (data / "control.db").unlink()
    journal, state = Journal(data / "control.db"), State()
    for number, event in enumerate((*LIFE[:-1], UndoRequested("eve", "no reason"))):
        state = apply_event(journal, state, event, AUTO, 1763840000.0 + number).state
    journal.close()
    assert run("verify").exit_code == 0
    result = run("verify", "--events", str(tmp_path / "events.jsonl"))
    assert result.exit_code == 1
    assert f"the journal was rewritten between entry {len(LIFE)} and entry {len(LIFE)}" in result.stderr
    assert f"entry {len(LIFE) - 1} is as published" in result.stderr


def test_events_of_nobody_are_a_mistake(run: Run, tmp_path: Path) -> None:
    result = run("verify", "--events", str(tmp_path / "events.jsonl"), "--source", "another")
    assert result.exit_code == 2
    assert "no event of source 'another'" in result.stderr
    assert run("verify", "--head", "41").exit_code == 2
    assert run("verify", "--head", "41:beef").exit_code == 2


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_verifies_alone(run: Run, data: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"audit.{form}"
    exported = run("export", str(file), "--format", form)
    assert exported.exit_code == 0
    assert f"{len(LIFE)} entries exported" in exported.stderr
    (data / "control.db").unlink()
    options = [str(file), "--events", str(tmp_path / "events.jsonl")]
    result = CliRunner().invoke(command, ["verify", "--config", str(tmp_path / "none.toml"), *options])
    assert result.exit_code == 0, result.output
    file.write_bytes(file.read_bytes().replace(b"longer", b"better"))
    result = CliRunner().invoke(command, ["verify", str(file)])
    assert result.exit_code == 1
    assert f"entry {len(LIFE)} was changed" in result.stderr
    assert list(tmp_path.glob(".tmp-*")) == []


def test_an_export_to_standard_output_is_nothing_but_the_export(run: Run) -> None:
    rows = list(csv.DictReader(run("export", "-", "--format", "csv").stdout.splitlines()))
    assert [int(row["seq"]) for row in rows] == list(range(1, len(LIFE) + 1))
    lines = run("export", "-").stdout.splitlines()
    assert json.loads(lines[-1])["event"]["type"] == "UndoRequested"


def test_a_broken_chain_is_exported_whole_and_told(run: Run, data: Path, tmp_path: Path) -> None:
    tamper(data, "UPDATE journal SET actor = 'eve' WHERE seq = 2")
    result = run("export", str(tmp_path / "audit.jsonl"))
    assert isinstance(result.exception, JournalError)
    assert "entry 2 was changed" in str(result.exception)
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == len(LIFE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), list(range(1, len(LIFE) + 1))),
        (("--limit", "2"), [len(LIFE) - 1, len(LIFE)]),
        (("--after", "3", "--limit", "2"), [4, 5]),
        (("--after", "0", "--limit", "0"), list(range(1, len(LIFE) + 1))),
        (("--actor", "ann"), [len(LIFE) - 1]),
        (("--type", "undo*", "--type", "DaemonStarted"), [1, len(LIFE)]),
        (("--actor", "nobody"), []),
    ],
)
def test_what_is_shown(run: Run, options: tuple[str, ...], expected: list[int]) -> None:
    assert numbers(run("show", *options)) == expected


def test_no_reason_steers_the_terminal_or_fakes_a_row(run: Run) -> None:
    text = run("show").stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == len(LIFE)
    assert r"longer\x1b[31m answers\n     1 approved" in text


@pytest.mark.parametrize("column", ["actor", "note", "event"])
def test_bytes_that_are_no_text_are_shown(run: Run, data: Path, column: str) -> None:
    raw = b'{"type":"E\xff"}' if column == "event" else b"E\xff"
    tamper(data, f"UPDATE journal SET {column} = CAST(x'{raw.hex()}' AS TEXT) WHERE seq = 2")
    shown = run("show")
    assert shown.exit_code == 0, shown.exception
    assert r"E\xdcff" in shown.stdout
    entry = [json.loads(line) for line in run("show", "--json").stdout.splitlines()][1]
    assert "E\udcff" in (entry["event"]["type"] if column == "event" else entry[column])


def test_json_and_full(run: Run) -> None:
    (short,) = [json.loads(line) for line in run("show", "--json", "--limit", "1").stdout.splitlines()]
    assert set(short) == {"seq", "at", "event", "commands", "actor", "note", "prev_hash", "hash"}
    (full,) = [json.loads(line) for line in run("show", "--json", "--full", "--limit", "1").stdout.splitlines()]
    assert full["state_after"]["routes"]["adapter"] is None
    assert '"prev_hash"' in run("show", "--full", "--limit", "1").stdout


def test_no_journal_is_told_with_the_remedy(run: Run, data: Path) -> None:
    (data / "control.db").unlink()
    result = run("show")
    assert isinstance(result.exception, JournalError)
    assert "has the daemon ever run with this config?" in str(result.exception)
    assert not (data / "control.db").exists(), "looking makes no journal"


def test_following_prints_what_is_added(data: Path) -> None:
    """As a process, while its owner writes."""
    config = ["--config", str(data.parent / "config.toml")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tao_daemon", "audit", "show", *config, "--limit", "1", "--follow"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == str(len(LIFE))
        journal = Journal(data / "control.db")
        journal.append(at=time.time(), event={"type": "E"}, state_after={}, commands=[], actor="ann", note="new")
        assert process.stdout.readline().split()[0] == str(len(LIFE) + 1)
        journal.close()
    finally:
        process.terminate()
        process.wait(10)
