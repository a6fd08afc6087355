"""Where reading starts, and what is wrong with a partition: pure decisions on offsets.

Invariants: nothing is jumped in silence: whatever the broker no longer has is a `Break` with its size; a partition
whose log begins again gets a new source name, so that its records are never taken for the buffered ones of before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


def source_topic(topic: str, incarnation: int) -> str:
    """The name that prompts and offsets of a log are kept under. `~` cannot occur in a Kafka topic's name."""
    return topic if incarnation == 1 else f"{topic}~{incarnation}"


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset to read in one partition, and which life of its log that belongs to."""

    incarnation: int
    offset: int


@dataclass(frozen=True, slots=True)
class Break:
    """Records that were or may have been there and are not any more."""

    partition: int
    missing: int


@dataclass(frozen=True, slots=True)
class StartPlan:
    positions: Mapping[int, Position]
    breaks: tuple[Break, ...]
    chosen: frozenset[int]
    """Partitions whose position was decided here and is in no table yet: to be written before it is relied on."""


def plan_start(
    stored: Mapping[int, Position],
    oldest: Mapping[int, int],
    newest: Mapping[int, int],
    *,
    start: Literal["earliest", "latest"],
) -> StartPlan:
    """Where to begin in each partition of `oldest`.

    `start` counts for a topic that was never read; a partition that appears later is read from its beginning.
    """
    positions, breaks = {}, []
    for partition, first in oldest.items():
        known = stored.get(partition)
        if known is None:
            offset = newest[partition] if start == "latest" and not stored else first
            positions[partition] = Position(1, offset)
        elif known.offset < first:
            positions[partition] = Position(known.incarnation, first)
            breaks.append(Break(partition, first - known.offset))
        else:
            positions[partition] = known
    chosen = frozenset(p for p, position in positions.items() if stored.get(p) != position)
    return StartPlan(positions, tuple(breaks), chosen)


def recover(current: Position, *, oldest: int, end: int, diverged_at: int | None = None) -> tuple[Position, int]:
    """Where to go on from an offset that the log does not have, and how many records that skips.

    Below `oldest`: deleted by retention, the log goes on. Else it was cut off at `end` or, where a new leader says so,
    at `diverged_at`, and what follows are other records under offsets that are already taken.
    """
    if current.offset < oldest:
        return Position(current.incarnation, oldest), oldest - current.offset
    if diverged_at is not None:
        return Position(current.incarnation + 1, max(oldest, diverged_at)), max(0, current.offset - diverged_at)
    return Position(current.incarnation + 1, oldest), max(0, current.offset - end)


@dataclass(frozen=True, slots=True)
class View:
    """What the consumer knows of a partition. `end` is None before the first answer."""

    position: int
    end: int | None


@dataclass(slots=True)
class Watchdog:
    """Notices partitions that do not move although they should. Seconds from any monotonic clock."""

    stuck_seconds: float
    truncation_seconds: float
    """How long a log must end below our position: a new leader may answer so for a moment."""
    _moved: dict[int, tuple[int, float]] = field(default_factory=dict)
    _beyond: dict[int, float] = field(default_factory=dict)

    def stuck(self, now: float, views: Mapping[int, View]) -> list[int]:
        """Partitions with records to read and a position that has been frozen for too long."""
        found = []
        for partition, view in views.items():
            position, since = self._moved.get(partition, (-1, now))
            if view.position != position or view.end is None or view.end <= view.position:
                self._moved[partition] = (view.position, now)
            elif now - since >= self.stuck_seconds:
                found.append(partition)
        return found

    def truncated(self, now: float, views: Mapping[int, View]) -> list[int]:
        """Partitions whose log has ended below our position for long enough to believe it."""
        found = []
        for partition, view in views.items():
            if view.end is None or view.end >= view.position:
                self._beyond.pop(partition, None)
            elif now - self._beyond.setdefault(partition, now) >= self.truncation_seconds:
                found.append(partition)
        return found

    def rest(self) -> None:
        """Nothing is read on purpose: time that passes proves nothing."""
        self._moved.clear()
