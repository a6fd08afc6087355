"""JSON in the text of an answer: the whole of it, or somewhere in it (in prose, in a code fence). Pure.

NaN, Infinity, numbers beyond a double and nesting deeper than 64 are not JSON here. Nothing raises; time is linear in
the text's length, times `MAX_STARTS`.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64
MAX_STARTS = 64
"""Opening brackets that are tried in search of embedded JSON."""

NOTHING = object()
"""There is no JSON value: not to be confused with null."""


def whole_json(text: str) -> Any:
    """The JSON value that the text is, or NOTHING."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return NOTHING
    return value if is_shallow(value) else NOTHING


def embedded_json(text: str) -> Any:
    """The longest JSON object or array in the text, or NOTHING."""
    best, longest, place = NOTHING, 0, 0
    for _ in range(MAX_STARTS):
        start = min((at for at in (text.find("{", place), text.find("[", place)) if at >= 0), default=-1)
        if start < 0:
            break
        try:
            value, place = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            place = start + 1
            continue
        if place - start > longest and is_shallow(value):
            best, longest = value, place - start
    return best


def is_shallow(value: Any) -> bool:
    """Whether a JSON value is nested no deeper than `MAX_DEPTH`."""
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
