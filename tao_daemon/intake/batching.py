"""Collects decoded records into the next transaction. No I/O.

Invariant: `next_offsets` covers exactly the records added, prompts and dead letters alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tao_daemon.domain.ports import Ingest, TopicPartition
from tao_daemon.domain.prompt import Prompt
from tao_daemon.intake.dead_letters import DeadLetter

MAX_BYTES = 32 * 1024 * 1024
"""Record bytes per batch: with one batch in flight and one collecting, what intake holds in memory."""


@dataclass(slots=True)
class Batch:
    """Records since the last one was handed over. `began` is None while it holds nothing to write."""

    max_records: int
    prompts: list[Prompt] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    bytes: int = 0
    began: float | None = None

    @property
    def room(self) -> int:
        """Records that still fit."""
        if self.bytes >= MAX_BYTES:
            return 0
        return max(0, self.max_records - len(self.prompts) - len(self.letters))

    def add(self, item: Prompt | DeadLetter, *, place: TopicPartition, offset: int, size: int, now: float) -> None:
        """Add the record at `offset`; `size` in bytes."""
        if isinstance(item, Prompt):
            self.prompts.append(item)
        else:
            self.letters.append(item)
        self.bytes += size
        self.move(place, offset + 1, now=now)

    def move(self, place: TopicPartition, next_offset: int, *, now: float) -> None:
        """Reading goes on at `next_offset`, with or without records."""
        self.next_offsets[place] = next_offset
        if self.began is None:
            self.began = now

    def is_due(self, now: float, max_wait_seconds: float) -> bool:
        return self.began is not None and (self.room == 0 or now - self.began >= max_wait_seconds)

    def ingest(self) -> Ingest:
        return Ingest(tuple(self.prompts), dict(self.next_offsets))

    def rejections(self) -> Counter[str]:
        """Dead letters by code."""
        return Counter(letter.code for letter in self.letters)
