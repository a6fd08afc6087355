"""How far a sink was told, on disk: the last entry by its number and its hash, so that another journal is noticed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from tao_daemon.clients.storage import atomic_write_json
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.journal import JournalEntry, JournalReader
from tao_daemon.domain.lifecycle import JournalHead

log = logging.getLogger(__name__)

NOTHING = JournalHead(0, "")
"""Before the first entry."""


class Cursor:
    """One small file per sink; whoever notifies the sink is its only owner."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, journal: JournalReader) -> JournalHead:
        """Where to go on. A new sink starts at the present head; one that was told of another journal just before
        it: after a restore, the newest entry says so. Raises JournalError.
        """
        present = _head(journal.last())
        found = self._read()
        if found is not None:
            if found == NOTHING or self._is_in(journal, found):
                return found
            log.error(
                "the journal is not the one that was told of: restored, or rewritten; going on with its newest entry",
                extra={"file": self._path.name, "told": str(found), "journal_end": str(present)},
            )
            present = _head(journal.get(present.seq - 1))
        self.move(present)
        return present

    def move(self, head: JournalHead) -> None:
        """Remember durably. A failing disk is logged: the worst of it is telling again."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_json(self._path, {"seq": head.seq, "hash": head.hash})
        except OSError as error:
            log.warning("cannot note what was told", extra={"file": str(self._path), "error": error.strerror})

    @staticmethod
    def _is_in(journal: JournalReader, head: JournalHead) -> bool:
        try:
            entry = journal.get(head.seq)
        except JournalError:
            return False
        return entry is not None and entry.hash == head.hash

    def _read(self) -> JournalHead | None:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            return JournalHead(int(value["seq"]), str(value["hash"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("cannot read what was told; starting at the journal's end", extra={"file": str(self._path)})
            return None


def _head(entry: JournalEntry | None) -> JournalHead:
    return JournalHead(entry.seq, entry.hash) if entry else NOTHING
