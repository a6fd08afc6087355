"""How far an answer is the JSON that was asked for: a graded score, so that a weak model has a way up.

With f the fraction of required keys that are there with a valid value (`SafeSchema.keys_met`):

    1                 the whole answer is one JSON value that meets the schema, and only then
    0.3 + 0.6 · f     the whole answer is a JSON object or array
    0.1 + 0.4 · f     an object or array stands somewhere in the answer (in prose, in a code fence)
    0                 neither

White space around the answer does not count. NaN, Infinity, numbers beyond a double and nesting deeper than 64
are not JSON here. Of several embedded values the longest counts.
"""

from __future__ import annotations

import json
import math
from typing import Any

from tao_daemon.scoring.json_schema import OutOfTime, SafeSchema, Undecided
from tao_daemon.scoring.verifier import Failure, Score

MAX_CHARACTERS = 200_000
"""A longer answer is not looked into: 0."""
MAX_DEPTH = 64
MAX_STARTS = 64
"""Opening brackets that are tried in search of embedded JSON."""

_NOTHING = object()


class JsonVerifier:
    """Implements `Verifier` for one schema. Raises ValueError for a schema that cannot be used."""

    def __init__(self, schema: Any, *, timeout_seconds: float) -> None:
        self._schema = SafeSchema(schema)
        self._timeout = timeout_seconds

    def check(self, text: str) -> Score:
        text = text.strip()
        if len(text) > MAX_CHARACTERS:
            return 0.0
        try:
            return self._graded(text)
        except OutOfTime:
            return Failure.TIMEOUT
        except Undecided:
            return Failure.ERROR

    def _graded(self, text: str) -> float:
        whole = _whole(text)
        if whole is not _NOTHING:
            if self._schema.is_valid(whole, seconds=self._timeout):
                return 1.0
            return (3 + 6 * self._keys_met(whole)) / 10 if isinstance(whole, dict | list) else 0.0
        found = _embedded(text)
        return 0.0 if found is _NOTHING else (1 + 4 * self._keys_met(found)) / 10

    def _keys_met(self, value: Any) -> float:
        return self._schema.keys_met(value, seconds=self._timeout)


def _whole(text: str) -> Any:
    """The JSON value that the text is, or _NOTHING."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _NOTHING
    return value if _is_shallow(value) else _NOTHING


def _embedded(text: str) -> Any:
    """The longest JSON object or array in the text, or _NOTHING."""
    best, longest, place = _NOTHING, 0, 0
    for _ in range(MAX_STARTS):
        start = min((at for at in (text.find("{", place), text.find("[", place)) if at >= 0), default=-1)
        if start < 0:
            break
        try:
            value, place = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            place = start + 1
            continue
        if place - start > longest and _is_shallow(value):
            best, longest = value, place - start
    return best


def _is_shallow(value: Any) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            child
            for node in layer
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not layer:
            return True
    return False


def _refuse(literal: str) -> None:
    raise ValueError(f"{literal} is not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError("a number beyond a double")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
