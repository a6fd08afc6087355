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
    log: str | None = None,
) -> DeadLetter:
    """The dead letter of the record at `topic`/`partition`/`offset`, refused for `code`.

    `log` is the name that the buffer keeps the topic's records under; None for the topic's own.
    """
    why = (
        ("tao-reason", code.encode()),
        ("tao-source-topic", topic.encode()),
        ("tao-source-partition", str(partition).encode()),
        ("tao-source-offset", str(offset).encode()),
        ("tao-source-log", (log or topic).encode()),
    )
    original = tuple((name, raw or b"") for name, raw in headers)
    size = sum(len(name) + len(raw) for name, raw in original)
    kept = original if size <= MAX_ORIGINAL_HEADER_BYTES else (("tao-dropped-header-bytes", str(size).encode()),)
    return DeadLetter(code, f"{topic}-{partition}-{offset}".encode(), value, why + kept)


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a record became a dead letter, and which record of which log it was."""

    code: str
    topic: str
    log: str
    """The topic as the buffer names it: another name for each life of its log."""
    partition: int
    offset: int
    is_whole: bool
    """Whether value and headers are all there."""


def origin_of(headers: Sequence[tuple[str, bytes | None]]) -> Origin | None:
    """The inverse of what `dead_letter` wrote; None for a record that is no dead letter of ours."""
    # Ours come first, and all of them are always there: a client's own headers cannot replace them.
    found = {name: raw or b"" for name, raw in reversed(headers) if name.startswith("tao-")}
    try:
        return Origin(
            code=found["tao-reason"].decode(),
            topic=found["tao-source-topic"].decode(),
            log=found["tao-source-log"].decode(),
            partition=int(found["tao-source-partition"]),
            offset=int(found["tao-source-offset"]),
            is_whole=not found.keys() & {"tao-dropped-bytes", "tao-dropped-header-bytes"},
        )
    except (KeyError, ValueError):
        return None
