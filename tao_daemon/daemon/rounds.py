"""How events move a round. Pure; results of an older attempt change nothing.

claiming → sampling → scoring → training → evaluating → closing → nothing
"""

from __future__ import annotations

from dataclasses import replace

from tao_daemon.daemon.state import Policy, State, Transition, refusal
from tao_daemon.domain.commands import CloseRound, RunPhase
from tao_daemon.domain.events import (
    CandidateJudged,
    PhaseCompleted,
    PhaseFailed,
    RoundCancelRequested,
    RoundClosed,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.round import ClosingRound, Outcome, Phase, RoundState, RoundSummary

_OUTCOMES = {
    Decision.PASS: Outcome.ACCEPTED,
    Decision.FAIL: Outcome.REJECTED,
    Decision.INCONCLUSIVE: Outcome.INCONCLUSIVE,
}


def start(state: State, now: float) -> Transition:
    """The round that is due, with the incumbent pinned for all of it."""
    assert state.due is not None
    running = RoundState(
        id=state.next_round,
        phase=Phase.CLAIMING,
        attempt=1,
        reason=state.due,
        started_at=now,
        incumbent=state.routes.adapter,
    )
    state = replace(state, round=running, next_round=state.next_round + 1, due=None)
    return Transition(state, (RunPhase(running),), f"round {running.id} starts: {running.reason}")


def resume(state: State, policy: Policy, now: float) -> Transition:
    """After a restart the phase begins again, but not forever."""
    running = state.round
    if running is None:
        return Transition(state)
    if running.attempt >= policy.max_attempts:
        reason = f"the {running.phase} phase was interrupted {running.attempt} times"
        return _close(state, running, Outcome.FAILED, reason, now)
    running = replace(running, attempt=running.attempt + 1)
    state = replace(state, round=running)
    return Transition(state, (RunPhase(running),), f"round {running.id} resumes at {running.phase}")


def completed(event: PhaseCompleted, state: State) -> Transition:
    running = _current(state, event.round, event.attempt, event.phase)
    following = event.phase.following
    if running is None or following is None:
        return Transition(state, note="ignored: a result of an attempt that is over")
    running = replace(running, phase=following, attempt=1, candidate=event.candidate or running.candidate)
    return Transition(replace(state, round=running), (RunPhase(running),), event.detail)


def judged(event: CandidateJudged, state: State, now: float) -> tuple[Transition, RoundState | None]:
    """The verdict; with it the round whose candidate was accepted, if it was."""
    running = _current(state, event.round, event.attempt, Phase.EVALUATING)
    if running is None or running.candidate is None:
        return Transition(state, note="ignored: a verdict of an attempt that is over"), None
    closed = _close(state, running, _OUTCOMES[event.decision], event.reason, now)
    return closed, running if event.decision is Decision.PASS else None


def failed(event: PhaseFailed, state: State, now: float) -> Transition:
    running = _current(state, event.round, event.attempt, event.phase)
    if running is None:
        return Transition(state, note="ignored: a failure of an attempt that is over")
    return _close(state, running, Outcome.FAILED, f"{event.phase}: {event.reason}", now, blameless=event.blameless)


def closed(event: RoundClosed, state: State) -> Transition:
    if state.closing is None or state.closing.round.id != event.round:
        return Transition(state, note=f"round {event.round} was closed already")
    return Transition(replace(state, closing=None), note=f"round {event.round} is put away")


def cancelled(event: RoundCancelRequested, state: State, now: float) -> Transition:
    if state.round is None:
        return refusal(state, "no round is running; there is nothing to cancel")
    return _close(state, state.round, Outcome.CANCELLED, event.reason, now)


def cancel_for(state: State, reason: str, now: float) -> Transition:
    """End a round that lost its ground, if one runs."""
    return _close(state, state.round, Outcome.CANCELLED, reason, now) if state.round else Transition(state)


def _current(state: State, round_id: int, attempt: int, phase: Phase) -> RoundState | None:
    """The running round, when the event speaks of it and of its present attempt."""
    running = state.round
    if running and (running.id, running.attempt, running.phase) == (round_id, attempt, phase):
        return running
    return None


def _close(
    state: State, running: RoundState, outcome: Outcome, reason: str, now: float, *, blameless: bool = False
) -> Transition:
    closing = ClosingRound(running, outcome, reason, blameless)
    summary = RoundSummary(running.id, outcome, reason, running.candidate, running.started_at, now)
    state = replace(state, round=None, closing=closing, last_round=summary)
    return Transition(state, (CloseRound(closing),), f"round {running.id} {outcome}: {reason}")
