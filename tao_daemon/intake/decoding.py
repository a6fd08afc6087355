"""Turns the bytes of a record into a Prompt, or says in one bounded word why it cannot be one.

Invariants: `decode` returns a Prompt or raises RecordError, whatever the bytes; no message quotes the record; every
accepted request can be walked, written as UTF-8 and flattened to text without an exception later on.

bytes → size → UTF-8 → JSON → tree (depth, numbers, text) → shape → Prompt
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tao_daemon.domain.errors import RecordError
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.intake.shapes import check_request

Headers = Sequence[tuple[str, bytes | None]]

MAX_DEPTH = 64
"""Nesting of a request; real ones stay below 20."""
MAX_HEADER_BYTES = 256
MAX_INTEGER = 2**63 - 1


def decode(value: bytes | None, headers: Headers, source: Source, received_at: float, *, max_bytes: int) -> Prompt:
    """The prompt in a record's value. `received_at` in Unix seconds. Raises RecordError."""
    return to_prompt(parse_object(value, max_bytes=max_bytes), headers, source, received_at)


def parse_object(value: bytes | None, *, max_bytes: int) -> dict[str, Any]:
    """A JSON object that is safe to walk, store and write again. Raises RecordError."""
    if not value:
        raise RecordError("empty", "the record has no value; send a chat or completions request as JSON")
    if len(value) > max_bytes:
        raise RecordError(
            "too_large", f"the record has {len(value)} bytes, more than buffer.max_prompt_bytes ({max_bytes})"
        )
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("not_utf8", f"byte {error.start} of the record is not UTF-8; encode it as UTF-8") from None
    parsed = _parse(text)
    _check_tree(parsed, text_is_plain="\\u" not in text)
    if not isinstance(parsed, dict):
        raise RecordError("not_object", f"the record is a JSON {type(parsed).__name__}, not an object")
    return parsed


def to_prompt(request: dict[str, Any], headers: Headers, source: Source, received_at: float) -> Prompt:
    """A prompt from a parsed request. Raises RecordError."""
    check_request(request)
    named = _named_headers(headers)
    return Prompt(
        id=source.prompt_id,
        request=request,
        source=source,
        received_at=received_at,
        tenant=named["tenant"],
        conversation=named["conversation"],
        subject=named["subject"],
    )


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except RecursionError:
        raise RecordError("too_deep", f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise RecordError("not_json", f"invalid JSON at character {error.pos}") from None
    except ValueError:  # an integer with thousands of digits
        raise RecordError("bad_number", "a number in the JSON is too long") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise RecordError("duplicate_key", "an object in the JSON has the same key twice; which one counts is unclear")
    return unique


def _refuse_constant(name: str) -> Any:
    raise RecordError("bad_number", f"{name} is not JSON; leave the field out")


def _check_tree(root: Any, *, text_is_plain: bool) -> None:
    """Bound depth and numbers; refuse text that UTF-8 or a database cannot hold. Iterative on purpose."""
    pending: list[tuple[Any, int]] = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if isinstance(node, str):
            if not text_is_plain:
                _check_text(node)
        elif isinstance(node, (dict, list)):
            if depth > MAX_DEPTH:
                raise RecordError("too_deep", f"the JSON is nested deeper than {MAX_DEPTH} levels")
            children = node if isinstance(node, list) else [*node.keys(), *node.values()]
            pending.extend((child, depth + 1) for child in children)
        elif isinstance(node, float):
            if not math.isfinite(node):
                raise RecordError("bad_number", "a number in the JSON exceeds the range of a double")
        elif isinstance(node, int) and abs(node) > MAX_INTEGER:
            raise RecordError("bad_number", "an integer in the JSON exceeds 64 bits")


def _check_text(text: str) -> None:
    """Only escapes can smuggle these in: raw ones are invalid JSON or invalid UTF-8."""
    if "\x00" in text:
        raise RecordError("bad_text", "a string in the JSON holds a NUL character; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError(
            "bad_text", "a string in the JSON holds half of a surrogate pair; send whole characters"
        ) from None


def _named_headers(headers: Headers) -> dict[str, str]:
    found = {"tenant": "", "conversation": "", "subject": ""}
    seen: set[str] = set()
    for name, raw in headers:
        if name not in found:
            continue
        if name in seen:
            raise RecordError("bad_header", f"the header {name} occurs twice; send it once")
        seen.add(name)
        found[name] = _header_text(name, raw or b"")
    return found


def _header_text(name: str, raw: bytes) -> str:
    if len(raw) > MAX_HEADER_BYTES:
        raise RecordError("bad_header", f"the header {name} has {len(raw)} bytes, more than {MAX_HEADER_BYTES}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RecordError("bad_header", f"the header {name} is not UTF-8") from None
    if not text.isprintable():
        raise RecordError("bad_header", f"the header {name} holds control characters")
    return text
