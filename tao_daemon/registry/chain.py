"""The hash chain of the journal: what a row's hash covers, and how a touched row is found and named. Pure.

A row's hash covers its content and the hash of the row before it, so one hash vouches for every row up to it. A chain
that was rewritten from some row to its end is consistent again: only a head that was published before tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.lifecycle import JournalHead

COLUMNS = ("seq", "at", "event", "state_after", "commands", "actor", "note", "prev_hash", "hash")
"""Of a row, in the order in which its hash covers them; `event`, `state_after` and `commands` are JSON texts."""
GENESIS = "0" * 64
"""What the first row follows."""

Row = tuple[Any, ...]


def dump(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(content: Row) -> str:
    """SHA-256 of a row without its own hash. Raises TypeError or ValueError for what was never written like that."""
    return hashlib.sha256(dump(list(content)).encode()).hexdigest()


def heads(rows: Iterable[Row]) -> Iterator[JournalHead]:
    """The head after every row, in order. Raises JournalError naming the first row that does not belong."""
    prev_hash = GENESIS
    for seq, row in enumerate(rows, start=1):
        *content, found = row
        if row[0] != seq:
            raise JournalError(f"journal entry {seq} is missing (found {row[0]})")
        if row[7] != prev_hash:
            raise JournalError(f"journal entry {seq} does not follow entry {seq - 1}")
        if not _covers(found, tuple(content)):
            raise JournalError(f"journal entry {seq} was changed after it was written")
        prev_hash = found
        yield JournalHead(seq, found)


def check(rows: Iterable[Row], published: Iterable[JournalHead] = ()) -> tuple[JournalHead, str | None]:
    """The last good head, entry 0 for none, and what is wrong: the first bad row, or what contradicts `published`."""
    told = tuple(published)
    places = {head.seq for head in told}
    end = JournalHead(0, GENESIS)
    hashes = {0: GENESIS}
    try:
        for end in heads(rows):
            if end.seq in places:
                hashes[end.seq] = end.hash
    except JournalError as error:
        return end, str(error)
    return end, find_rewriting(hashes, end.seq, told)


def find_rewriting(hashes: Mapping[int, str], length: int, published: Iterable[JournalHead]) -> str | None:
    """What contradicts the published heads, or None.

    `hashes`: those of the chain, at least at the published places; `length`: the last entry of the chain.
    """
    intact = 0
    for head in sorted(published, key=lambda head: head.seq):
        if head.seq > length:
            return f"journal entry {head.seq} was published, but the journal ends at entry {length}: its end is gone"
        found = hashes.get(head.seq, "")
        if not found.startswith(head.hash):
            since = f"entry {intact} is as published, so " if intact else ""
            return (
                f"journal entry {head.seq} has the hash {found[:12]}, but {head.hash[:12]} was published: {since}"
                f"the journal was rewritten between entry {intact + 1} and entry {head.seq}"
            )
        intact = head.seq
    return None


def _covers(found: Any, content: Row) -> bool:
    try:
        return bool(digest(content) == found)
    except (TypeError, ValueError):
        # A BLOB, an infinite number or broken UTF-8: nothing that was ever appended.
        return False
