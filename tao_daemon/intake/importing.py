"""Prompts from a file, one JSON object per line: a record's value, or {"value": {…}, "headers": {…}}.

Invariant: the source is the file's digest and the line, so importing the same bytes again adds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tao_daemon.domain.errors import RecordError
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.intake.decoding import parse_object, to_prompt


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that cannot be a prompt. `line` counts from 1."""

    line: int
    code: str


def read_jsonl(path: Path, max_bytes: int, clock: Clock) -> Iterator[Prompt | RejectedLine]:
    """Every line that is not blank, as a prompt or as what is wrong with it. Raises OSError.

    `max_bytes` bounds a whole line, headers included. Reads the file twice, a line at a time.
    """
    with path.open("rb") as file:
        topic = f"import:{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
        file.seek(0)
        for line, raw in _lines(file, max_bytes):
            if not raw.strip():
                continue
            try:
                yield _to_prompt(raw, Source(topic, 0, line), max_bytes, clock())
            except RecordError as error:
                yield RejectedLine(line, error.code)


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends; of a longer one, just enough to see that it is too long."""
    number = 0
    while head := file.readline(max_bytes + 2):
        number += 1
        if not head.endswith(b"\n"):
            tail = head
            while tail and not tail.endswith(b"\n"):
                tail = file.readline(65_536)
        yield number, head.rstrip(b"\r\n")


def _to_prompt(raw: bytes, source: Source, max_bytes: int, now: float) -> Prompt:
    parsed = parse_object(raw, max_bytes=max_bytes)
    value = parsed.get("value")
    if not isinstance(value, dict) or "messages" in parsed or "prompt" in parsed:
        return to_prompt(parsed, (), source, now)
    headers = parsed.get("headers") or {}
    return to_prompt(value, _headers(headers), source, now)


def _headers(headers: Any) -> list[tuple[str, bytes]]:
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise RecordError("bad_header", "headers must be an object of texts")
    return [(name, text.encode()) for name, text in headers.items()]
