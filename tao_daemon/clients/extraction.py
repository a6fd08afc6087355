"""Takes one value out of the text of an answer, as a setting says.

    whole            the text
    last_line        its last line that is not blank
    last_number      the last number in it (see `domain.numbers`)
    boxed            what the last LaTeX \\boxed{…} holds; of nested ones, the outer
    code             the last fenced code block, closed or not; the whole text without one
    after:TEXT       what follows the last TEXT (case matters), to the end of the text: an answer may have many lines
    json:/pointer    the value at an RFC 6901 pointer in the JSON that the text is, or that is embedded in it; a string
                     as itself, anything else as compact JSON with sorted keys
    regex:PATTERN    the first group of the first match, the whole match when the pattern has no group

White space around the value does not count, and a blank value is none. A text above `MAX_CHARACTERS` has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tao_daemon.clients.patterns import compile_pattern
from tao_daemon.domain.embedded_json import NOTHING, embedded_json, whole_json
from tao_daemon.domain.numbers import last_number

MAX_CHARACTERS = 200_000
TIMEOUT_SECONDS = 1.0

Extract = Callable[[str], str | None]
"""None: the text has no such value."""


def text_extractor(spec: str) -> Extract:
    """The extractor that never raises: what is not found within `TIMEOUT_SECONDS` is not there. Safe from any thread.

    Raises ValueError for a spec that names none.
    """
    extract = timed_extractor(spec, timeout_seconds=TIMEOUT_SECONDS)

    def found(text: str) -> str | None:
        try:
            return extract(text)
        except TimeoutError:
            return None

    return found


def timed_extractor(spec: str, *, timeout_seconds: float) -> Extract:
    """The extractor, which raises TimeoutError (of `regex:` only) and nothing else. Safe from any thread.

    Raises ValueError for a spec that names none.
    """
    find = _find(spec, timeout_seconds)

    def extract(text: str) -> str | None:
        return None if len(text) > MAX_CHARACTERS else (find(text) or "").strip() or None

    return extract


def pointer_of(spec: str) -> tuple[str, ...] | None:
    """The reference tokens of a "json:/…" spec; None for any other. Raises ValueError for what is no pointer."""
    if not spec.startswith("json:"):
        return None
    pointer = spec.removeprefix("json:")
    if (pointer and not pointer.startswith("/")) or re.search(r"~(?![01])", pointer):
        raise ValueError(f'extractor {spec!r}: {pointer!r} is no JSON pointer; write it as "json:/key/0"')
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def value_at(value: Any, pointer: tuple[str, ...]) -> Any:
    """What the pointer leads to, or NOTHING."""
    for token in pointer:
        if isinstance(value, Mapping) and token in value:
            value = value[token]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", token) and int(token) < len(value):
            value = value[int(token)]
        else:
            return NOTHING
    return value


def as_text(value: Any) -> str:
    """A JSON value as one text: a string as itself, anything else as compact JSON with sorted keys."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _find(spec: str, timeout_seconds: float) -> Extract:
    plain = _PLAIN.get(spec)
    if plain is not None:
        return plain
    name, _, argument = spec.partition(":")
    pointer = pointer_of(spec)
    if pointer is not None:
        return lambda text: _in_json(text, pointer)
    if name == "after" and argument.strip():
        return lambda text: _after(text, argument)
    if name == "regex" and argument:
        return _first_match(spec, argument, timeout_seconds)
    known = ", ".join([*_PLAIN, "after:TEXT", "json:/pointer", "regex:PATTERN"])
    raise ValueError(f"there is no extractor {spec!r}; there are {known}")


def _first_match(spec: str, argument: str, timeout_seconds: float) -> Extract:
    try:
        pattern = compile_pattern(argument)
    except ValueError as error:
        raise ValueError(f"extractor {spec!r}: {error}") from None

    def find(text: str) -> str | None:
        # `concurrent` releases the interpreter's lock, so that a slow match stops nobody else.
        found = pattern.search(text, timeout=timeout_seconds, concurrent=True)
        return None if found is None else found[1 if pattern.groups else 0]

    return find


def _last_line(text: str) -> str | None:
    return next((line for line in reversed(text.splitlines()) if line.strip()), None)


def _boxed(text: str) -> str | None:
    found = None
    opened: list[int | None] = []
    for brace in _BRACES.finditer(text):
        match brace.group():
            case "{":
                opened.append(None)
            case "}":
                start = opened.pop() if opened else None
                found = found if start is None else text[start : brace.start()]
            case boxed if boxed.startswith("\\boxed"):
                opened.append(brace.end())
    return found


def _code(text: str) -> str | None:
    last: list[str] | None = None
    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence and mark and mark["fence"].startswith(fence) and not mark["info"].strip():
            fence = ""
        elif fence and last is not None:
            last.append(line)
        elif mark and "`" not in mark["info"]:
            fence, last = mark["fence"], []
    return text if last is None else "\n".join(last)


def _after(text: str, marker: str) -> str | None:
    before, found, rest = text.rpartition(marker)
    if not found:
        return None
    # **Answer:** 4 and **Answer: 4** both answer 4.
    stressed = _STRESS.search(before)
    if stressed and rest.startswith(stressed.group()):
        return rest.removeprefix(stressed.group())
    return rest.rstrip().removesuffix(stressed.group()) if stressed else rest


def _in_json(text: str, pointer: tuple[str, ...]) -> str | None:
    whole = whole_json(text.strip())
    value = value_at(embedded_json(text) if whole is NOTHING else whole, pointer)
    return None if value is NOTHING else as_text(value)


_BRACES = re.compile(r"\\boxed\s{0,3}\{|[{}]|\\[{}]|\\\\(?!boxed)")
_FENCE = re.compile(r"\s*(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_STRESS = re.compile(r"[*_]{1,3}\Z")
_PLAIN: dict[str, Extract] = {
    "whole": str,
    "last_line": _last_line,
    "last_number": last_number,
    "boxed": _boxed,
    "code": _code,
}
