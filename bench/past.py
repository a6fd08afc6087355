"""Events of an undisturbed daemon, in order: a past for a measurement's journal, a play for the machine's tests."""

from __future__ import annotations

from tao_daemon.domain.events import (
    AdapterVerified,
    CandidateJudged,
    Event,
    PhaseCompleted,
    RolloutPromoted,
    RoundClosed,
    RoundRequested,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.round import Phase


def a_round(number: int, adapter: str, decision: Decision = Decision.PASS) -> list[Event]:
    """A round up to its verdict; when that is PASS, the rollout of its adapter is staged."""
    work: list[Event] = [RoundRequested("a past")]
    for phase in list(Phase)[:4]:
        work.append(PhaseCompleted(number, 1, phase, adapter if phase is Phase.TRAINING else None))
    return [*work, CandidateJudged(number, 1, decision, "judged"), RoundClosed(number)]


def settling(number: int, adapter: str) -> list[Event]:
    """A round whose adapter is verified and promoted in full."""
    return [*a_round(number, adapter), AdapterVerified(adapter, 1), RolloutPromoted("ann", "sure", full=True)]
