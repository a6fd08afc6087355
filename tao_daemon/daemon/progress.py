"""How far the running phase is, and how long it will take: folded from signals, for status and console."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tao_daemon.domain.round import Phase
from tao_daemon.domain.signals import PhaseProgressed, SamplingPaced, Signal


@dataclass(frozen=True, slots=True)
class PhaseProgress:
    """`seconds_left` is None until there is something to extrapolate from."""

    round: int
    phase: Phase
    done: int
    total: int
    seconds: float
    seconds_left: float | None
    held: str = ""
    """Why it does not sample now although it would."""

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 0.0


class ProgressBoard:
    """Remembers the latest progress of the latest phase."""

    def __init__(self) -> None:
        self._latest: PhaseProgressed | None = None
        self._started = 0.0
        self._done_at_start = 0
        self._held = ""

    def __call__(self, signal: Signal) -> None:
        if isinstance(signal, SamplingPaced):
            self._held = signal.held
        if not isinstance(signal, PhaseProgressed):
            return
        latest = self._latest
        if latest is None or (latest.round, latest.phase) != (signal.round, signal.phase) or signal.done < latest.done:
            self._started = time.monotonic()
            self._done_at_start = signal.done
        self._latest = signal

    def current(self, round_id: int, phase: Phase) -> PhaseProgress | None:
        """Progress of that phase, or None before its first signal."""
        latest = self._latest
        if latest is None or (latest.round, latest.phase) != (round_id, phase):
            return None
        seconds = time.monotonic() - self._started
        gained = latest.done - self._done_at_start
        left = seconds / gained * (latest.total - latest.done) if gained > 0 else None
        return PhaseProgress(round_id, phase, latest.done, latest.total, seconds, left, self._held)
