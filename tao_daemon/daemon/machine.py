"""The heart: `advance(state, event) -> (state, commands)`. Pure; every decision of the daemon is made here.

A round runs only when no rollout is open; the incumbent is pinned for a whole round; a result of an older
attempt changes nothing; an undo always works and ends what was built on the undone adapter.

idle → claiming → sampling → scoring → training → evaluating → idle, or a rollout: staged → swapping → settled
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import assert_never

from tao_daemon.domain.commands import (
    CloseRound,
    Command,
    PublishRoutes,
    RetireAdapter,
    RunPhase,
    VerifyAdapter,
)
from tao_daemon.domain.events import (
    AdapterVerified,
    CandidateJudged,
    DaemonStarted,
    Event,
    PhaseCompleted,
    PhaseFailed,
    RolloutAborted,
    RolloutApproved,
    RoundCancelRequested,
    RoundClosed,
    RoundRequested,
    SwapFailed,
    UndoRequested,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutMode, RolloutPhase, RolloutState, Routes
from tao_daemon.domain.round import ClosingRound, Outcome, Phase, RoundState, RoundSummary


@dataclass(frozen=True, slots=True)
class State:
    """Everything the daemon must not forget. What is not here is observed again after a restart."""

    routes: Routes = field(default_factory=lambda: Routes(generation=0, adapter=None))
    incumbent_since: float = 0.0
    round: RoundState | None = None
    closing: ClosingRound | None = None
    rollout: RolloutState | None = None
    last_round: RoundSummary | None = None
    next_round: int = 1
    due: str | None = None
    """Why a round should start as soon as it can; survives restarts, so that no calendar tick is lost."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration lets the machine decide."""

    mode: RolloutMode
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state, what to do, and why, in words for the audit log."""

    state: State
    commands: tuple[Command, ...] = ()
    note: str = ""


_OUTCOMES = {
    Decision.PASS: Outcome.ACCEPTED,
    Decision.FAIL: Outcome.REJECTED,
    Decision.INCONCLUSIVE: Outcome.INCONCLUSIVE,
}


def advance(state: State, event: Event, policy: Policy, now: float) -> Transition:
    """The next state and the commands that follow from one event at Unix second `now`."""
    return _start_if_due(_on(event, state, policy, now), now)


def _on(event: Event, state: State, policy: Policy, now: float) -> Transition:
    match event:
        case DaemonStarted():
            return _started(event, state, policy, now)
        case RoundRequested():
            return Transition(replace(state, due=event.reason), note=f"a round is due: {event.reason}")
        case PhaseCompleted():
            return _completed(event, state)
        case CandidateJudged():
            return _judged(event, state, policy, now)
        case PhaseFailed():
            return _failed(event, state, now)
        case RoundClosed():
            return _closed(event, state)
        case RoundCancelRequested():
            return _cancelled(event, state, now)
        case RolloutApproved():
            return _approved(event, state, now)
        case RolloutAborted():
            return _aborted(event, state, now)
        case AdapterVerified():
            return _verified(event, state, now)
        case SwapFailed():
            return _swap_failed(event, state, now)
        case UndoRequested():
            return _undo(event, state, now)
        case _:
            assert_never(event)


def _started(event: DaemonStarted, state: State, policy: Policy, now: float) -> Transition:
    """Nothing is known about what ran before: publish the routes again and restart open work."""
    resident = [name for name in (state.routes.adapter, state.routes.previous) if name]
    commands: list[Command] = [PublishRoutes(state.routes)]
    commands += [VerifyAdapter(name, attempt=0) for name in resident]
    if state.closing:
        commands.append(CloseRound(state.closing))
    step = Transition(state, tuple(commands), f"version {event.version} started")
    return _resume_round(_resume_rollout(step, policy, now), policy, now)


def _resume_rollout(step: Transition, policy: Policy, now: float) -> Transition:
    rollout = step.state.rollout
    waits_for_nobody = rollout is not None and rollout.phase is RolloutPhase.STAGED and policy.mode is RolloutMode.AUTO
    if rollout is None or not (waits_for_nobody or rollout.phase is RolloutPhase.SWAPPING):
        return step
    return _then(step, _swap(step.state, rollout, "resumed after a restart", now))


def _resume_round(step: Transition, policy: Policy, now: float) -> Transition:
    running = step.state.round
    if running is None:
        return step
    if running.attempt >= policy.max_attempts:
        reason = f"the {running.phase} phase was interrupted {running.attempt} times"
        return _then(step, _close(step.state, running, Outcome.FAILED, reason, now))
    running = replace(running, attempt=running.attempt + 1)
    state = replace(step.state, round=running)
    return _then(step, Transition(state, (RunPhase(running),), f"round {running.id} resumes at {running.phase}"))


def _completed(event: PhaseCompleted, state: State) -> Transition:
    running = _current(state, event.round, event.attempt, event.phase)
    following = event.phase.following
    if running is None or following is None:
        return Transition(state, note="ignored: a result of an attempt that is over")
    running = replace(running, phase=following, attempt=1, candidate=event.candidate or running.candidate)
    return Transition(replace(state, round=running), (RunPhase(running),), event.detail)


def _judged(event: CandidateJudged, state: State, policy: Policy, now: float) -> Transition:
    running = _current(state, event.round, event.attempt, Phase.EVALUATING)
    if running is None or running.candidate is None:
        return Transition(state, note="ignored: a verdict of an attempt that is over")
    closed = _close(state, running, _OUTCOMES[event.decision], event.reason, now)
    if event.decision is not Decision.PASS:
        return closed
    return _then(closed, _stage(closed.state, running.candidate, running.id, policy, now))


def _failed(event: PhaseFailed, state: State, now: float) -> Transition:
    running = _current(state, event.round, event.attempt, event.phase)
    if running is None:
        return Transition(state, note="ignored: a failure of an attempt that is over")
    return _close(state, running, Outcome.FAILED, f"{event.phase}: {event.reason}", now)


def _closed(event: RoundClosed, state: State) -> Transition:
    if state.closing is None or state.closing.round.id != event.round:
        return Transition(state, note=f"round {event.round} was closed already")
    return Transition(replace(state, closing=None), note=f"round {event.round} is put away")


def _cancelled(event: RoundCancelRequested, state: State, now: float) -> Transition:
    if state.round is None:
        return Transition(state, note="no round is running; nothing to cancel")
    return _close(state, state.round, Outcome.CANCELLED, event.reason, now)


def _approved(event: RolloutApproved, state: State, now: float) -> Transition:
    rollout = state.rollout
    if rollout is None or rollout.phase is not RolloutPhase.STAGED:
        return Transition(state, note="no rollout is staged; nothing to approve")
    return _swap(state, rollout, f"approved by {event.actor}: {event.reason}", now)


def _aborted(event: RolloutAborted, state: State, now: float) -> Transition:
    rollout = state.rollout
    if rollout is None or not rollout.phase.is_open:
        return Transition(state, note="no rollout is open; nothing to abort")
    return _abort(state, rollout, event.reason, now)


def _verified(event: AdapterVerified, state: State, now: float) -> Transition:
    rollout = _current_swap(state, event.adapter, event.attempt)
    if rollout is None:
        return Transition(state, note=f"{event.adapter} is served and verified: {event.detail}")
    old = state.routes
    routes = Routes(old.generation + 1, adapter=rollout.adapter, previous=old.adapter)
    state = replace(
        state,
        routes=routes,
        incumbent_since=now,
        rollout=replace(rollout, phase=RolloutPhase.SETTLED, reason=event.detail, since=now),
    )
    retired = [RetireAdapter(name) for name in {old.previous} - {None, routes.adapter, routes.previous} if name]
    note = f"{rollout.adapter} serves, verified: {event.detail}; {old.adapter or 'the base model'} stays for undo"
    return Transition(state, (PublishRoutes(routes), *retired), note)


def _swap_failed(event: SwapFailed, state: State, now: float) -> Transition:
    rollout = _current_swap(state, event.adapter, event.attempt)
    if rollout is None:
        return Transition(state, note=f"{event.adapter} could not be verified: {event.reason}")
    return _abort(state, rollout, event.reason, now)


def _undo(event: UndoRequested, state: State, now: float) -> Transition:
    """Back to the previous adapter, at once; a second undo goes back to the base model."""
    undone = state.routes.adapter
    if undone is None:
        return Transition(state, note="the base model serves already; nothing to undo")
    routes = Routes(state.routes.generation + 1, adapter=state.routes.previous, previous=None)
    rollout = state.rollout
    commands: tuple[Command, ...] = (PublishRoutes(routes), RetireAdapter(undone))
    if rollout and rollout.adapter == undone:
        rollout = replace(rollout, phase=RolloutPhase.ROLLED_BACK, reason=event.reason, since=now)
    elif rollout and rollout.phase.is_open:
        commands += (RetireAdapter(rollout.adapter),)
        rollout = replace(rollout, phase=RolloutPhase.ABORTED, reason=f"{undone} was undone", since=now)
    note = f"{undone} undone by {event.actor}: {event.reason}; {routes.adapter or 'the base model'} serves"
    state = replace(state, routes=routes, rollout=rollout, incumbent_since=now)
    step = Transition(state, commands, note)
    if state.round is None:
        return step
    reason = f"its incumbent {undone} was undone"
    return _then(step, _close(state, state.round, Outcome.CANCELLED, reason, now))


def _current(state: State, round_id: int, attempt: int, phase: Phase) -> RoundState | None:
    """The running round, when the event speaks of it and of its present attempt."""
    running = state.round
    if running and (running.id, running.attempt, running.phase) == (round_id, attempt, phase):
        return running
    return None


def _current_swap(state: State, adapter: str, attempt: int) -> RolloutState | None:
    """The swap under way, when the event speaks of it and of its present attempt."""
    rollout = state.rollout
    if rollout and rollout.phase is RolloutPhase.SWAPPING and (rollout.adapter, rollout.attempt) == (adapter, attempt):
        return rollout
    return None


def _then(first: Transition, second: Transition) -> Transition:
    """Both, in order: the second was computed from the state of the first."""
    note = "; ".join(part for part in (first.note, second.note) if part)
    return Transition(second.state, (*first.commands, *second.commands), note)


def _close(state: State, running: RoundState, outcome: Outcome, reason: str, now: float) -> Transition:
    closing = ClosingRound(running, outcome, reason)
    summary = RoundSummary(running.id, outcome, reason, running.candidate, running.started_at, now)
    state = replace(state, round=None, closing=closing, last_round=summary)
    return Transition(state, (CloseRound(closing),), f"round {running.id} {outcome}: {reason}")


def _stage(state: State, adapter: str, round_id: int, policy: Policy, now: float) -> Transition:
    rollout = RolloutState(adapter, round_id, RolloutPhase.STAGED, attempt=0, reason="the gate passed", since=now)
    staged = Transition(replace(state, rollout=rollout), note=f"{adapter} is staged")
    match policy.mode:
        case RolloutMode.AUTO:
            return _then(staged, _swap(staged.state, rollout, "the mode is auto", now))
        case RolloutMode.APPROVE:
            return replace(staged, note=f"{adapter} is staged and waits for `tao-daemon rollout approve`")
        case RolloutMode.OBSERVE:
            return _then(staged, _abort(staged.state, rollout, "the mode is observe; it would have served", now))


def _swap(state: State, rollout: RolloutState, reason: str, now: float) -> Transition:
    rollout = replace(rollout, phase=RolloutPhase.SWAPPING, attempt=rollout.attempt + 1, reason=reason, since=now)
    command = VerifyAdapter(rollout.adapter, rollout.attempt)
    return Transition(replace(state, rollout=rollout), (command,), f"{rollout.adapter} goes into serving: {reason}")


def _abort(state: State, rollout: RolloutState, reason: str, now: float) -> Transition:
    rollout = replace(rollout, phase=RolloutPhase.ABORTED, reason=reason, since=now)
    return Transition(
        replace(state, rollout=rollout),
        (RetireAdapter(rollout.adapter),),
        f"rollout of {rollout.adapter} aborted: {reason}; nothing was flipped",
    )


def _start_if_due(step: Transition, now: float) -> Transition:
    """Start the round that is due, when the last one is put away and no rollout is open."""
    state = step.state
    rollout_open = state.rollout is not None and state.rollout.phase.is_open
    if state.due is None or state.round or state.closing or rollout_open:
        return step
    running = RoundState(
        id=state.next_round,
        phase=Phase.CLAIMING,
        attempt=1,
        reason=state.due,
        started_at=now,
        incumbent=state.routes.adapter,
    )
    state = replace(state, round=running, next_round=state.next_round + 1, due=None)
    note = f"round {running.id} starts: {running.reason}"
    return _then(step, Transition(state, (RunPhase(running),), note))
