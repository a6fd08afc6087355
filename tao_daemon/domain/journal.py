"""The journal as those see it who only read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class JournalEntry(Protocol):
    """One transition as it was journaled, in plain JSON values."""

    @property
    def seq(self) -> int: ...

    @property
    def at(self) -> float:
        """Unix second."""
        ...

    @property
    def event(self) -> Mapping[str, Any]:
        """`type` is the name of a class of `domain.events`; the rest are its fields."""
        ...

    @property
    def state_after(self) -> Mapping[str, Any]: ...

    @property
    def actor(self) -> str: ...

    @property
    def note(self) -> str: ...

    @property
    def hash(self) -> str: ...


class JournalReader(Protocol):
    """Looks at the journal, from any thread, while its owner writes. Every method raises JournalError."""

    def last(self) -> JournalEntry | None: ...

    def get(self, seq: int) -> JournalEntry | None: ...

    def page(self, after: int, limit: int) -> Sequence[JournalEntry]:
        """The next entries above `after`, in order, at most `limit`."""
        ...
