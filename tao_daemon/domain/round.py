"""A round: one sampling → scoring → training → evaluating cycle.

claiming → sampling → scoring → training → evaluating → accepted | rejected | inconclusive | failed | cancelled
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """A phase of a running round, in order. Each ends with an artefact on disk and a journal entry."""

    CLAIMING = "claiming"
    SAMPLING = "sampling"
    SCORING = "scoring"
    TRAINING = "training"
    EVALUATING = "evaluating"

    @property
    def following(self) -> Phase | None:
        order = list(Phase)
        place = order.index(self) + 1
        return order[place] if place < len(order) else None


class Outcome(StrEnum):
    """How a round ended."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RoundState:
    """A running round. `attempt` grows with every (re)start of a phase; results of older ones are ignored."""

    id: int
    phase: Phase
    attempt: int
    reason: str
    """Why it started, in words."""
    started_at: float
    incumbent: str | None
    """The adapter that samples and that the candidate must beat, pinned for the whole round."""
    candidate: str | None = None


@dataclass(frozen=True, slots=True)
class ClosingRound:
    """A round with an outcome whose prompts and candidate are still being put away."""

    round: RoundState
    outcome: Outcome
    reason: str
    blameless: bool = False
    """It failed for what is no prompt's fault: a server did not answer, or refused everything."""

    @property
    def tells_of_prompts(self) -> bool:
        """Whether prompts that come back have had one of their tries: not where the round was stopped from outside, or
        before any of them was asked."""
        stopped = self.outcome is Outcome.CANCELLED or self.blameless
        return not stopped and self.round.phase is not Phase.CLAIMING


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """A finished round, as the state remembers the latest one."""

    id: int
    outcome: Outcome
    reason: str
    candidate: str | None
    started_at: float
    ended_at: float
