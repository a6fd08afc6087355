"""What printing needs without a terminal library: JSON, and the signs that views draw with."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

BAR_WIDTH = 24
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_STEERING = ("Cc", "Cs", "Zl", "Zp")
"""Controls, lone surrogates, and the separators that some terminals break lines at."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Signs that say without colour how something stands."""

    done: str
    now: str
    ahead: str
    failed: str
    held: str
    filled: str
    empty: str
    arrow: str
    levels: str
    """From nothing to most, for a row of counts."""


UNICODE = Marks("✔", "●", "○", "✖", "‖", "█", "░", "→", " ▁▂▃▄▅▆▇█")
ASCII = Marks("[x]", "[>]", "[ ]", "[!]", "[=]", "#", "-", "->", " .:-=+*#@")


def echo_json(found: Any) -> None:
    click.echo(_json(found, indent=2))


def echo_json_line(found: Any) -> None:
    """One document of many: a line each."""
    click.echo(_json(found))


def tell(found: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """What was found: as JSON for programs, or as `show` prints it for people."""
    if as_json:
        echo_json(found)
    else:
        show(found)


def bar(fraction: float, marks: Marks, width: int = BAR_WIDTH) -> str:
    """A bar of `width` signs; full only when the fraction is 1."""
    filled = int(max(0.0, min(1.0, fraction)) * width)
    return marks.filled * filled + marks.empty * (width - filled)


def number(value: Any, form: str = ".3f") -> str:
    """A number, or `-` where there is none."""
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def spark(counts: Sequence[int], marks: Marks) -> str:
    """One sign per count, as high as its share of the largest; what is not zero is never shown as nothing."""
    most, steps = max(counts, default=0), len(marks.levels) - 1
    return "".join(marks.levels[-(-count * steps // most)] if most else marks.levels[0] for count in counts)


def clean(text: str) -> str:
    """Text of others without what could steer a terminal: control and direction characters become visible."""
    return "".join(f"\\x{ord(char):02x}" if _steers(char) else char for char in text)


def clean_line(text: str) -> str:
    """Text of others within one line: what would begin another, or a column, becomes visible too."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def _json(found: Any, indent: int | None = None) -> str:
    """With lone surrogates, which no stream takes, as the escapes that JSON has for them."""
    return json.dumps(found, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _steers(char: str) -> bool:
    if char in "\n\t":
        return False
    return unicodedata.category(char) in _STEERING or unicodedata.bidirectional(char) in _DIRECTIONS
