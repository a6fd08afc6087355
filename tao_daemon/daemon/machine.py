"""The heart: `advance(state, event) -> (state, commands)`. Pure; every decision of the daemon is made here.

The incumbent is pinned for a whole round; a result of an older attempt changes nothing; an undo always works and
ends what was built on the undone adapter. Rounds are in `rounds`, deliveries in `rollouts`, the way back in `undo`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import assert_never

from tao_daemon.daemon import rollouts, rounds, undo
from tao_daemon.daemon.state import Policy, State, Transition
from tao_daemon.domain.commands import CloseRound, Command, PublishRoutes
from tao_daemon.domain.events import (
    AdapterDeleted,
    AdapterUnservable,
    AdapterVerified,
    BackupRestored,
    CandidateJudged,
    DaemonStarted,
    Event,
    PhaseCompleted,
    PhaseFailed,
    PromptsForgotten,
    ReplicaDrifted,
    ReplicaHealed,
    RolloutAborted,
    RolloutApproved,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RoundCancelRequested,
    RoundClosed,
    RoundRequested,
    ShadowScored,
    TokenIssued,
    TokenRevoked,
    TrafficMeasured,
    UndoRequested,
    VerificationFailed,
)
from tao_daemon.domain.rollout import RolloutPhase


def advance(state: State, event: Event, policy: Policy, now: float) -> Transition:
    """The next state and the commands that follow from one event at Unix second `now`."""
    step = _on(event, state, policy, now)
    after = step.state
    if after.due and not after.round and not after.closing and rollouts.leaves_room_for_round(after, policy):
        return step.then(rounds.start(after, now))
    return step


def _on(event: Event, state: State, policy: Policy, now: float) -> Transition:
    match event:
        case DaemonStarted():
            return _started(event, state, policy, now)
        case RoundRequested():
            return Transition(replace(state, due=event.reason), note=f"a round is due: {event.reason}")
        case PhaseCompleted():
            return rounds.completed(event, state)
        case CandidateJudged():
            return _judged(event, state, now)
        case PhaseFailed():
            return rounds.failed(event, state, now)
        case RoundClosed():
            return rounds.closed(event, state)
        case RoundCancelRequested():
            return rounds.cancelled(event, state, now)
        case RolloutApproved():
            return rollouts.approved(event, state, policy)
        case RolloutPromoted():
            return rollouts.promoted(event, state, policy, now)
        case RolloutAborted():
            return rollouts.aborted(event, state, now)
        case RolloutPaused():
            return rollouts.paused(event, state)
        case RolloutResumed():
            return rollouts.resumed(event, state, now)
        case AdapterVerified():
            return _verified(event, state, now)
        case VerificationFailed():
            return _verification_failed(event, state, now)
        case ShadowScored():
            return rollouts.scored(event, state, policy, now)
        case TrafficMeasured():
            return rollouts.measured(event, state, policy, now)
        case UndoRequested():
            return undo.undo(event, state, now)
        case ReplicaDrifted():
            return _drifted(event, state)
        case ReplicaHealed():
            return _healed(event, state)
        case AdapterUnservable():
            return rollouts.unservable(event, state, now)
        case AdapterDeleted():
            return Transition(state, note=f"files of {event.adapter} deleted: {event.reason}")
        case TokenIssued():
            return Transition(state, note=f"token {event.name} may {', '.join(event.scopes)}: {event.reason}")
        case TokenRevoked():
            return Transition(state, note=f"token {event.name} revoked: {event.reason}")
        case PromptsForgotten():
            return Transition(state, note=_erasure_note(event))
        case BackupRestored():
            return _restored(event, state)
        case _:
            assert_never(event)


def _started(event: DaemonStarted, state: State, policy: Policy, now: float) -> Transition:
    """Nothing is known about what ran before: publish the routes again and restart open work."""
    commands: list[Command] = [PublishRoutes(state.routes)]
    if state.closing:
        commands.append(CloseRound(state.closing))
    step = Transition(state, tuple(commands), f"version {event.version} started")
    rollout = state.rollout
    if rollout and rollout.phase is RolloutPhase.STAGED:
        step = step.then(rollouts.verify(step.state, rollout, f"rollout of {rollout.adapter} resumes", now))
    step = step.then(undo.resume(step.state))
    return step.then(rounds.resume(step.state, policy, now))


def _erasure_note(event: PromptsForgotten) -> str:
    note = f"{event.count} prompts erased by {event.selected_by}: {event.reason}"
    return f"{note}; adapters trained on them: {', '.join(event.adapters)}" if event.adapters else note


def _restored(event: BackupRestored, state: State) -> Transition:
    """Gateways take no older generation than theirs, and theirs may be newer than the backup."""
    routes = replace(state.routes, generation=max(event.generation, state.routes.generation + 1))
    taken = datetime.fromtimestamp(event.taken_at, UTC)
    note = f"restored from a backup of {taken:%Y-%m-%d %H:%M:%S} UTC: {event.reason}"
    return Transition(replace(state, routes=routes), (PublishRoutes(routes),), note)


def _judged(event: CandidateJudged, state: State, now: float) -> Transition:
    closed, accepted = rounds.judged(event, state, now)
    if accepted is None or accepted.candidate is None:
        return closed
    return closed.then(rollouts.stage(closed.state, accepted.candidate, accepted.id, now))


def _verified(event: AdapterVerified, state: State, now: float) -> Transition:
    found = rollouts.verified(event, state, now) or undo.verified(event, state, now)
    return found or Transition(state, note=f"ignored: {event.adapter} was verified for an attempt that is over")


def _verification_failed(event: VerificationFailed, state: State, now: float) -> Transition:
    found = rollouts.verification_failed(event, state, now) or undo.verification_failed(event, state)
    return found or Transition(state, note=f"ignored: {event.adapter} failed in an attempt that is over")


def _drifted(event: ReplicaDrifted, state: State) -> Transition:
    """No gateway may ask it for an adapter until it is proven again."""
    if event.url in state.routes.unready:
        return Transition(state, note=f"{event.url} is known to have drifted: {event.reason}")
    routes = rollouts.bumped(state.routes, unready=(*state.routes.unready, event.url))
    note = f"{event.url} drifted: {event.reason}; it serves the base model alone until it is healed"
    return Transition(replace(state, routes=routes), (PublishRoutes(routes),), note)


def _healed(event: ReplicaHealed, state: State) -> Transition:
    if event.url not in state.routes.unready:
        return Transition(state, note=f"{event.url} was ready: {event.detail}")
    routes = rollouts.bumped(state.routes, unready=tuple(url for url in state.routes.unready if url != event.url))
    return Transition(replace(state, routes=routes), (PublishRoutes(routes),), f"{event.url} healed: {event.detail}")
