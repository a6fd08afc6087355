"""The journal and audit log: one SQLite row per transition, hash-chained, written before anything acts.

A row is committed (WAL, synchronous=FULL) when `append` returns. Readers may open it while the daemon writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao_daemon.domain.errors import JournalError
from tao_daemon.registry.chain import COLUMNS, GENESIS, Row, check, digest, dump

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
_REQUESTS = """
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    seq INTEGER NOT NULL,
    refused INTEGER NOT NULL
)
"""
_COLUMNS = ", ".join(COLUMNS)
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


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A client's name for one request, so that sending it twice does it once. `digest` is of what was asked."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request with a key led to."""

    digest: str
    seq: int
    note: str
    refused: bool


class Journal:
    """Append-only log in one SQLite file. Not thread-safe: one owner appends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._db.text_factory = decode_text
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
        self._db.execute(_REQUESTS)
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
        request: RequestKey | None = None,
        refused: bool = False,
    ) -> Entry:
        """Write one transition durably, with the request that led to it. Raises JournalError; then nothing may act."""
        last = self.last()
        seq, prev_hash = (last.seq + 1, last.hash) if last else (1, GENESIS)
        row = (seq, at, dump(event), dump(state_after), dump(commands), actor, note, prev_hash)
        found = digest(row)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(f"INSERT INTO journal ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", (*row, found))
            if request is not None:
                self._db.execute(
                    "INSERT INTO requests (key, digest, seq, refused) VALUES (?,?,?,?)",
                    (request.key, request.digest, seq, refused),
                )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise JournalError(f"cannot write to the journal {self._path}: {error}") from error
        return Entry(seq, at, event, state_after, commands, actor, note, prev_hash, found)

    def answered(self, key: str) -> Answered | None:
        """What the request with that key led to, if there was one."""
        row = self._db.execute(
            "SELECT digest, seq, note, refused FROM requests JOIN journal USING (seq) WHERE key = ?", (key,)
        ).fetchone()
        return Answered(row[0], row[1], row[2], bool(row[3])) if row else None

    def last(self) -> Entry | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
        return entry_of(row) if row else None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Every entry with a sequence number above `after`, in order."""
        with closing(self._db.execute(f"SELECT {_COLUMNS} FROM journal WHERE seq > ? ORDER BY seq", (after,))) as rows:
            for row in rows:
                yield entry_of(row)

    def verify(self) -> int:
        """Check the whole hash chain; the number of entries. Raises JournalError naming the first bad row."""
        with closing(self._db.execute(f"SELECT {_COLUMNS} FROM journal ORDER BY seq")) as rows:
            head, problem = check(rows)
        if problem is not None:
            raise JournalError(problem)
        return head.seq

    def close(self) -> None:
        self._db.close()


def decode_text(raw: bytes) -> str:
    """A column's text; bytes that are no UTF-8 were never appended, and are told by the chain, not by a crash."""
    return raw.decode("utf-8", "surrogateescape")


def entry_of(row: Row) -> Entry:
    """The entry in a row. Raises JournalError when the row was made unreadable."""
    seq, at, *texts, actor, note, prev_hash, found = row
    try:
        event, state, commands = (json.loads(text) for text in texts)
        if not (isinstance(at, float) and isinstance(event, dict) and isinstance(state, dict) and "type" in event):
            raise ValueError("not what is appended")
        return Entry(seq, at, event, state, commands, str(actor), str(note), prev_hash, found)
    except (TypeError, ValueError):
        raise JournalError(
            f"journal entry {seq} cannot be read: it was changed after it was written; see `tao-daemon audit verify`"
        ) from None
