"""Prompts from a file, one JSON object per line: a record's value, or {"value": {…}, "headers": {…}}; and into one.

Invariants: the source is the file's digest and the line, so importing the same bytes again adds nothing. What
`export_line` wrote says where it came from and when, and is the same prompt again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tao_daemon.domain.errors import RecordError
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.prompt import Prompt, Source, Split
from tao_daemon.intake.decoding import parse_object, to_prompt

_ENVELOPE_BYTES = 4096
"""What a line may have beyond its request: headers, source, time."""


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that cannot be a prompt. `line` counts from 1."""

    line: int
    code: str


def read_jsonl(path: Path, max_bytes: int, clock: Clock) -> Iterator[Prompt | RejectedLine]:
    """Every line that is not blank, as a prompt or as what is wrong with it. Raises OSError.

    `max_bytes` bounds a request, as a line or in one. Reads the file twice, a line at a time.
    """
    with path.open("rb") as file:
        topic = f"import:{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
        file.seek(0)
        for line, raw in _lines(file, max_bytes + _ENVELOPE_BYTES):
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


def export_line(prompt: Prompt, split: Split) -> bytes:
    """The prompt as one line that `read_jsonl` reads as the same prompt. The split is for people."""
    named = {"tenant": prompt.tenant, "conversation": prompt.conversation, "subject": prompt.subject}
    line = {
        "value": prompt.request,
        "headers": {name: text for name, text in named.items() if text},
        "received_at": prompt.received_at,
        "source": asdict(prompt.source),
        "split": split.value,
    }
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _to_prompt(raw: bytes, source: Source, max_bytes: int, now: float) -> Prompt:
    parsed = parse_object(raw, max_bytes=max_bytes + _ENVELOPE_BYTES)
    value = parsed.get("value")
    if not isinstance(value, dict) or "messages" in parsed or "prompt" in parsed:
        _check_size(len(raw), max_bytes)
        return to_prompt(parsed, (), source, now)
    if len(raw) > max_bytes:
        _check_size(len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()), max_bytes)
    headers = parsed.get("headers") or {}
    return to_prompt(value, _headers(headers), _source(parsed, source), _received_at(parsed, now))


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RecordError("too_large", f"the request has {size} bytes, more than buffer.max_prompt_bytes ({max_bytes})")


def _source(parsed: Mapping[str, Any], otherwise: Source) -> Source:
    """Where an exported prompt came from first."""
    if "source" not in parsed:
        return otherwise
    match parsed["source"]:
        case {"topic": str(topic), "partition": int(partition), "offset": int(offset)} if (
            0 <= partition < 2**31 and offset >= 0
        ):
            return Source(topic, partition, offset)
    raise RecordError("bad_source", 'source must be {"topic": text, "partition": number, "offset": number}')


def _received_at(parsed: Mapping[str, Any], now: float) -> float:
    """A date in the future would make it the newest for ever."""
    at = parsed.get("received_at", now)
    if isinstance(at, bool) or not isinstance(at, int | float) or at < 0:
        raise RecordError("bad_source", "received_at must be a Unix time in seconds")
    return min(float(at), now)


def _headers(headers: Any) -> list[tuple[str, bytes]]:
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise RecordError("bad_header", "headers must be an object of texts")
    return [(name, text.encode()) for name, text in headers.items()]
