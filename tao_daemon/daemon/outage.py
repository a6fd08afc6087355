"""Patience with a server that does not answer. Pure."""

from __future__ import annotations


class OutagePatience:
    """How long to wait for a server that does not answer: pauses double up to a minute, the sum is bounded."""

    def __init__(self, limit_seconds: float, now: float) -> None:
        self._until = now + limit_seconds
        self._pause = 2.0

    def next_pause(self, now: float) -> float | None:
        """Seconds to wait before the next try; None when patience is at its end."""
        if now >= self._until:
            return None
        pause, self._pause = min(self._pause, self._until - now), min(self._pause * 2, 60.0)
        return pause
