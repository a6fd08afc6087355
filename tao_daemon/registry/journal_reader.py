"""Looks at the journal without ever changing it or holding up its owner: a connection per look, read-only.

Works while the daemon runs, while it is down, and on a copy in a directory that cannot be written to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from tao_daemon.domain.errors import JournalError
from tao_daemon.registry.chain import COLUMNS, Row
from tao_daemon.registry.journal import Entry, decode_text, entry_of

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM journal"
_BUSY_SECONDS = 5.0
_NOT_WRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""Primary codes of a write-ahead log whose index cannot be made."""
_PAGE = 500
"""Rows per look: no look is so long that it keeps the owner from truncating its write-ahead log."""


class ReadOnlyJournal:
    """A `JournalReader` for one file. Every method raises JournalError; safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> Entry | None:
        return next(iter(self._entries(f"{_SELECT} ORDER BY seq DESC LIMIT 1")), None)

    def get(self, seq: int) -> Entry | None:
        return next(iter(self._entries(f"{_SELECT} WHERE seq = ?", seq)), None)

    def page(self, after: int, limit: int) -> Sequence[Entry]:
        return self._entries(f"{_SELECT} WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Every entry with a sequence number above `after`, in order, with those that are added meanwhile."""
        while page := self.page(after, _PAGE):
            yield from page
            after = page[-1].seq

    def newest_first(self) -> Iterator[Entry]:
        """Every entry, from the last to the first."""
        last = self.last()
        below = last.seq + 1 if last else 0
        while page := self._entries(f"{_SELECT} WHERE seq < ? ORDER BY seq DESC LIMIT {_PAGE}", below):
            yield from page
            below = page[-1].seq

    def rows(self) -> Iterator[Row]:
        """Every row as it is stored, in order, for whoever verifies or exports."""
        after: int | None = None
        while page := self._next_rows(after):
            yield from page
            after = page[-1][0]

    def _next_rows(self, after: int | None) -> list[Row]:
        if after is None:
            return self._rows(f"{_SELECT} ORDER BY seq LIMIT {_PAGE}")
        return self._rows(f"{_SELECT} WHERE seq > ? ORDER BY seq LIMIT {_PAGE}", after)

    def _entries(self, sql: str, *values: int) -> list[Entry]:
        return [entry_of(row) for row in self._rows(sql, *values)]

    def _rows(self, sql: str, *values: int) -> list[Row]:
        try:
            with self._connection() as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"cannot read the journal {self._path}: {error}") from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            raise JournalError(f"there is no journal at {self._path}; has the daemon ever run with this config?")
        with closing(self._connect("mode=ro")) as db:
            try:
                db.execute("SELECT 1 FROM sqlite_master")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _NOT_WRITABLE or self._log_waits():
                    raise
            else:
                yield db
                return
        # Where nobody can write and nobody wrote, the file is all there is.
        with closing(self._connect("mode=ro&immutable=1")) as db:
            yield db

    def _connect(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"file:{quote(str(self._path.absolute()))}?{mode}", uri=True, timeout=_BUSY_SECONDS)
        db.text_factory = decode_text
        return db

    def _log_waits(self) -> bool:
        log = self._path.with_name(f"{self._path.name}-wal")
        return log.exists() and log.stat().st_size > 0
