"""The heart: `advance(state, event) -> (state, commands)`. Pure; every decision of the daemon is made here.

A round runs only when no rollout is open; the incumbent is pinned for a whole round; a result of an older
attempt changes nothing; an undo always works and ends what was built on the undone adapter.

idle → claiming → sampling → scoring → training → evaluating → idle, or a rollout: staged → swapping → settled
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch

from tao_daemon.domain.commands import (
    CloseRound,
    Command,
    PublishRoutes,
    RetireAdapter,
    RunPhase,
    StopRound,
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
    RoundRequested,
    SwapFailed,
    UndoRequested,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutMode, RolloutPhase, RolloutState, Routes
from tao_daemon.domain.round import Outcome, Phase, RoundState, RoundSummary


@dataclass(frozen=True, slots=True)
class State:
    """Everything the daemon must not forget. What is not here is observed again after a restart."""

    routes: Routes = Routes(generation=0, adapter=None)
    incumbent_since: float = 0.0
    round: RoundState | None = None
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


@singledispatch
def _on(event: object, state: State, policy: Policy, now: float) -> Transition:
    raise TypeError(f"no transition for {type(event).__name__}")


@_on.register
def _started(event: DaemonStarted, state: State, policy: Policy, now: float) -> Transition:
    """Nothing is known about what ran before: publish the routes again and restart open work."""
    commands: list[Command] = [PublishRoutes(state.routes)]
    if state.routes.adapter:
        commands.append(VerifyAdapter(state.routes.adapter, attempt=0))
    rollout = state.rollout
    if rollout and rollout.phase is RolloutPhase.SWAPPING:
        rollout = replace(rollout, attempt=rollout.attempt + 1)
        commands.append(VerifyAdapter(rollout.adapter, rollout.attempt))
    state = replace(state, rollout=rollout)
    running = state.round
    if running is None:
        return Transition(state, tuple(commands), f"version {event.version} started")
    if running.attempt >= policy.max_attempts:
        reason = f"the {running.phase} phase was interrupted {running.attempt} times"
        closed = _close(state, running, Outcome.FAILED, reason, now)
        return replace(closed, commands=(*commands, *closed.commands))
    running = replace(running, attempt=running.attempt + 1)
    commands.append(RunPhase(running))
    note = f"version {event.version} started; round {running.id} resumes at {running.phase}"
    return Transition(replace(state, round=running), tuple(commands), note)


@_on.register
def _requested(event: RoundRequested, state: State, policy: Policy, now: float) -> Transition:
    return Transition(replace(state, due=event.reason), note=f"a round is due: {event.reason}")


@_on.register
def _completed(event: PhaseCompleted, state: State, policy: Policy, now: float) -> Transition:
    running = _current(state, event.round, event.attempt, event.phase)
    following = event.phase.following
    if running is None or following is None:
        return Transition(state, note="ignored: a result of an attempt that is over")
    running = replace(running, phase=following, attempt=1, candidate=event.candidate or running.candidate)
    return Transition(replace(state, round=running), (RunPhase(running),), event.detail)


@_on.register
def _judged(event: CandidateJudged, state: State, policy: Policy, now: float) -> Transition:
    running = _current(state, event.round, event.attempt, Phase.EVALUATING)
    if running is None or running.candidate is None:
        return Transition(state, note="ignored: a verdict of an attempt that is over")
    closed = _close(state, running, _OUTCOMES[event.decision], event.reason, now)
    if event.decision is not Decision.PASS:
        return closed
    return _stage(closed, running.candidate, running.id, policy, now)


@_on.register
def _failed(event: PhaseFailed, state: State, policy: Policy, now: float) -> Transition:
    running = _current(state, event.round, event.attempt, event.phase)
    if running is None:
        return Transition(state, note="ignored: a failure of an attempt that is over")
    return _close(state, running, Outcome.FAILED, f"{event.phase}: {event.reason}", now)


@_on.register
def _cancelled(event: RoundCancelRequested, state: State, policy: Policy, now: float) -> Transition:
    if state.round is None:
        return Transition(state, note="no round is running; nothing to cancel")
    return _close(state, state.round, Outcome.CANCELLED, event.reason, now)


@_on.register
def _approved(event: RolloutApproved, state: State, policy: Policy, now: float) -> Transition:
    rollout = state.rollout
    if rollout is None or rollout.phase is not RolloutPhase.STAGED:
        return Transition(state, note="no rollout is staged; nothing to approve")
    return _swap(state, rollout, f"approved by {event.actor}: {event.reason}", now)


@_on.register
def _aborted(event: RolloutAborted, state: State, policy: Policy, now: float) -> Transition:
    rollout = state.rollout
    if rollout is None or not rollout.phase.is_open:
        return Transition(state, note="no rollout is open; nothing to abort")
    return _abort(state, rollout, event.reason, now)


@_on.register
def _verified(event: AdapterVerified, state: State, policy: Policy, now: float) -> Transition:
    rollout = state.rollout
    if (
        rollout is None
        or rollout.phase is not RolloutPhase.SWAPPING
        or (rollout.adapter, rollout.attempt) != (event.adapter, event.attempt)
    ):
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


@_on.register
def _swap_failed(event: SwapFailed, state: State, policy: Policy, now: float) -> Transition:
    rollout = state.rollout
    if (
        rollout is None
        or rollout.phase is not RolloutPhase.SWAPPING
        or (rollout.adapter, rollout.attempt) != (event.adapter, event.attempt)
    ):
        return Transition(state, note=f"{event.adapter} could not be verified: {event.reason}")
    return _abort(state, rollout, event.reason, now)


@_on.register
def _undo(event: UndoRequested, state: State, policy: Policy, now: float) -> Transition:
    """Back to the previous adapter, at once; a second undo goes back to the base model."""
    undone = state.routes.adapter
    if undone is None:
        return Transition(state, note="the base model serves already; nothing to undo")
    routes = Routes(state.routes.generation + 1, adapter=state.routes.previous, previous=None)
    rollout = state.rollout
    if rollout and rollout.adapter == undone:
        rollout = replace(rollout, phase=RolloutPhase.ROLLED_BACK, reason=event.reason, since=now)
    elif rollout and rollout.phase.is_open:
        rollout = replace(rollout, phase=RolloutPhase.ABORTED, reason=f"{undone} was undone", since=now)
    note = f"{undone} undone; {routes.adapter or 'the base model'} serves"
    step = Transition(
        replace(state, routes=routes, rollout=rollout, incumbent_since=now), (PublishRoutes(routes),), note
    )
    if state.round is None:
        return step
    closed = _close(step.state, state.round, Outcome.CANCELLED, f"its incumbent {undone} was undone", now)
    return Transition(closed.state, (*step.commands, *closed.commands), note)


def _current(state: State, round_id: int, attempt: int, phase: Phase) -> RoundState | None:
    """The running round, when the event speaks of it and of its present attempt."""
    running = state.round
    if running and (running.id, running.attempt, running.phase) == (round_id, attempt, phase):
        return running
    return None


def _close(state: State, running: RoundState, outcome: Outcome, reason: str, now: float) -> Transition:
    summary = RoundSummary(running.id, outcome, reason, running.candidate, running.started_at, now)
    state = replace(state, round=None, last_round=summary)
    note = f"round {running.id} {outcome}: {reason}"
    return Transition(state, (StopRound(running.id), CloseRound(running, outcome, reason)), note)


def _stage(step: Transition, adapter: str, round_id: int, policy: Policy, now: float) -> Transition:
    rollout = RolloutState(adapter, round_id, RolloutPhase.STAGED, attempt=0, reason="the gate passed", since=now)
    staged = replace(step, state=replace(step.state, rollout=rollout))
    if policy.mode is not RolloutMode.AUTO:
        waits = "approval" if policy.mode is RolloutMode.APPROVE else "nothing: the mode is observe"
        return replace(staged, note=f"{step.note}; {adapter} is staged and waits for {waits}")
    swap = _swap(staged.state, rollout, "the mode is auto", now)
    return Transition(swap.state, (*step.commands, *swap.commands), f"{step.note}; {swap.note}")


def _swap(state: State, rollout: RolloutState, reason: str, now: float) -> Transition:
    rollout = replace(
        rollout, phase=RolloutPhase.SWAPPING, attempt=rollout.attempt + 1, reason=reason, since=now
    )
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
    """Start the round that is due, when none runs and no rollout is open."""
    state = step.state
    rollout_open = state.rollout is not None and state.rollout.phase.is_open
    if state.due is None or state.round is not None or rollout_open:
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
    return Transition(state, (*step.commands, RunPhase(running)), f"{step.note}; {note}" if step.note else note)
