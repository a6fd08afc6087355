"""The whole journal in one file that needs no database: JSON lines for programs, CSV for spreadsheets.

Every column of every entry is in it, the hashes too, so the chain can be verified from the file alone, anywhere.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tao_daemon.domain.errors import JournalError
from tao_daemon.registry.chain import COLUMNS, Row, dump

FORMATS = ("jsonl", "csv")
_JSON_COLUMNS = ("event", "state_after", "commands")


def write_rows(rows: Iterable[Row], file: IO[str], form: str) -> Iterator[Row]:
    """Writes each row, and gives it on. Undecodable bytes, which only tampering leaves, are escaped."""
    if form == "csv":
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([_clean(repr(value) if isinstance(value, float) else value) for value in row])
            yield row
    else:
        for row in rows:
            file.write(f"{json.dumps(_parsed(row), default=str)}\n")
            yield row


def read_rows(file: Iterable[str], name: str) -> Iterator[Row]:
    """The rows of an exported file, of either format. Raises JournalError naming the line that is none."""
    lines = iter(file)
    first = next(lines, "")
    if first.strip() == ",".join(COLUMNS):
        yield from _csv_rows(lines, name)
        return
    for number, line in enumerate(_chained(first, lines), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            yield tuple(dump(value[column]) if column in _JSON_COLUMNS else value[column] for column in COLUMNS)
        except (ValueError, KeyError, TypeError):
            raise JournalError(f"line {number} of {name} is no journal entry; export it anew") from None


def _csv_rows(lines: Iterator[str], name: str) -> Iterator[Row]:
    # A state is longer than the 128 KiB that the module takes for a field by itself.
    csv.field_size_limit(sys.maxsize)
    for number, fields in enumerate(csv.reader(lines), start=1):
        try:
            seq, at, *rest = fields
            if len(fields) != len(COLUMNS):
                raise ValueError(f"{len(fields)} columns")
            yield (int(seq), float(at), *rest)
        except ValueError:
            raise JournalError(f"row {number} of {name} is no journal entry; export it anew") from None


def _chained(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _parsed(row: Row) -> dict[str, Any]:
    """With JSON columns as values; one that was made unreadable stays the text that it is."""
    value = dict(zip(COLUMNS, row, strict=True))
    for column in _JSON_COLUMNS:
        try:
            value[column] = json.loads(value[column])
        except (TypeError, ValueError):
            value[column] = _clean(value[column])
    return value


def _clean(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
