"""What is written about a record that cannot become a prompt, and where it came from.

At least once, keyed by source offset, so that a reader can drop repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

Header = tuple[str, bytes]

MAX_ORIGINAL_HEADER_BYTES = 8192
"""Original headers above this are dropped together: half of them would mislead."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record for the dead-letter topic."""

    code: str
    key: bytes
    value: bytes | None
    headers: tuple[Header, ...]

    def without_value(self) -> DeadLetter:
        """For a broker that refuses the size: where it came from still arrives."""
        dropped = ("tao-dropped-bytes", str(len(self.value or b"")).encode())
        return replace(self, value=None, headers=(*self.headers, dropped))


def dead_letter(
    *,
    code: str,
    topic: str,
    partition: int,
    offset: int,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
) -> DeadLetter:
    """The dead letter of the record at `topic`/`partition`/`offset`, refused for `code`."""
    why = (
        ("tao-reason", code.encode()),
        ("tao-source-topic", topic.encode()),
        ("tao-source-partition", str(partition).encode()),
        ("tao-source-offset", str(offset).encode()),
    )
    original = tuple((name, raw or b"") for name, raw in headers)
    size = sum(len(name) + len(raw) for name, raw in original)
    kept = original if size <= MAX_ORIGINAL_HEADER_BYTES else ()
    return DeadLetter(code, f"{topic}-{partition}-{offset}".encode(), value, why + kept)
