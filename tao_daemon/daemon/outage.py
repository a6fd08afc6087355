"""Patience with a server that does not answer. Pure."""

from __future__ import annotations

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds."""


class OutagePatience:
    """How long a piece of work waits for a server that does not answer: pauses double up to a minute, and end so many
    seconds after the first failure since the work last got further."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._pause = FIRST_PAUSE
        self._until: float | None = None
        self._furthest = 0

    def reached(self, done: int) -> None:
        """So much of the work is done. Further than ever means that the server is back: the next outage has a time of
        its own. Work that begins anew and fails at the same place again gets no further."""
        if done > self._furthest:
            self._furthest, self._until, self._pause = done, None, FIRST_PAUSE

    def next_pause(self, now: float) -> float | None:
        """Seconds to wait after a failure before the next try; None when patience is at its end."""
        if self._until is None:
            self._until = now + self._limit
        if now >= self._until:
            return None
        pause, self._pause = min(self._pause, self._until - now), min(self._pause * 2, LONGEST_PAUSE)
        return pause
