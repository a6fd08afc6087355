"""The journal and audit log: one SQLite row per transition, hash-chained, written before anything acts.

A row is committed (WAL, synchronous=FULL) when `append` returns. Readers may open it while the daemon writes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao_daemon.domain.errors import JournalError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    state_after TEXT NOT NULL,
    commands TEXT NOT NULL,
    actor TEXT NOT NULL,
    note TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
)
"""
_COLUMNS = "seq, at, event, state_after, commands, actor, note, prev_hash, hash"
_GENESIS = "0" * 64
_SCHEMA_VERSION = 1
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition, as plain JSON values."""

    seq: int
    at: float
    event: Mapping[str, Any]
    state_after: Mapping[str, Any]
    commands: Sequence[Any]
    actor: str
    note: str
    prev_hash: str
    hash: str


class Journal:
    """Append-only log in one SQLite file. Not thread-safe: one owner appends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise JournalError(f"cannot open the journal {path}: {error}") from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise JournalError(
                f"{self._path} has schema {version}, this version of tao-daemon knows {_SCHEMA_VERSION}; "
                "run the newer version that wrote it"
            )
        self._db.execute(_SCHEMA)
        self._db.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def append(
        self,
        *,
        at: float,
        event: Mapping[str, Any],
        state_after: Mapping[str, Any],
        commands: Sequence[Any],
        actor: str,
        note: str,
    ) -> Entry:
        """Write one transition durably. Raises JournalError; then nothing may act on it."""
        last = self.last()
        seq, prev_hash = (last.seq + 1, last.hash) if last else (1, _GENESIS)
        row = (seq, at, _dump(event), _dump(state_after), _dump(commands), actor, note, prev_hash)
        digest = _digest(row)
        try:
            self._db.execute(f"INSERT INTO journal ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", (*row, digest))
        except sqlite3.Error as error:
            raise JournalError(f"cannot write to the journal {self._path}: {error}") from error
        return Entry(seq, at, event, state_after, commands, actor, note, prev_hash, digest)

    def last(self) -> Entry | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
        return _entry(row) if row else None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Every entry with a sequence number above `after`, in order."""
        with closing(self._db.execute(f"SELECT {_COLUMNS} FROM journal WHERE seq > ? ORDER BY seq", (after,))) as rows:
            for row in rows:
                yield _entry(row)

    def verify(self) -> int:
        """Check the whole hash chain; the number of entries. Raises JournalError naming the first bad row."""
        expected_seq, expected_prev = 1, _GENESIS
        with closing(self._db.execute(f"SELECT {_COLUMNS} FROM journal ORDER BY seq")) as rows:
            for row in rows:
                *content, digest = row
                if row[0] != expected_seq:
                    raise JournalError(f"journal entry {expected_seq} is missing (found {row[0]})")
                if row[7] != expected_prev:
                    raise JournalError(f"journal entry {row[0]} does not follow entry {row[0] - 1}")
                if _digest(tuple(content)) != digest:
                    raise JournalError(f"journal entry {row[0]} was changed after it was written")
                expected_seq, expected_prev = row[0] + 1, digest
        return int(expected_seq - 1)

    def close(self) -> None:
        self._db.close()


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(row: tuple[Any, ...]) -> str:
    return hashlib.sha256(_dump(list(row)).encode()).hexdigest()


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, at, event, state, commands, actor, note, prev_hash, digest = row
    return Entry(seq, at, json.loads(event), json.loads(state), json.loads(commands), actor, note, prev_hash, digest)
