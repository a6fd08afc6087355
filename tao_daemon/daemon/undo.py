"""Undo: the previous adapter, the base model, or one that settled before. Pure.

What is resident is flipped to at once. What is not is loaded and verified first, while the present one serves on.
"""

from __future__ import annotations

from dataclasses import replace

from tao_daemon.daemon.rollouts import abort, without_rollout
from tao_daemon.daemon.rounds import cancel_for
from tao_daemon.daemon.state import Returning, State, Transition, refusal
from tao_daemon.domain.commands import PublishRoutes, VerifyAdapter
from tao_daemon.domain.events import AdapterVerified, UndoRequested, VerificationFailed
from tao_daemon.domain.rollout import BASE, RolloutPhase


def undo(event: UndoRequested, state: State, now: float) -> Transition:
    """Take back what came last: an open canary first, else the serving adapter; or go to `event.to`."""
    routes, why = state.routes, f"{event.actor}: {event.reason}"
    if event.to is None:
        if routes.candidate and state.open_rollout:
            return abort(state, state.open_rollout, f"undone by {why}", now)
        if routes.adapter is None:
            return refusal(state, "the base model serves already; there is nothing to undo")
        return _flip(state, routes.previous, why, now)
    target = None if event.to == BASE else event.to
    if target == routes.adapter:
        rollout = state.open_rollout
        if rollout is None or rollout.adapter == target:
            return refusal(state, f"{event.to} serves already; there is nothing to undo")
        # What serves stays, and its way back with it: only what was to replace it goes.
        return abort(state, rollout, f"undone by {why}", now)
    if target in (None, routes.previous):
        return _flip(state, target, why, now)
    if target not in state.served:
        return refusal(
            state, f"{event.to!r} never settled here, so there is nothing to go back to; see `rollout history`"
        )
    step = _without_open_rollout(state, f"going back to {target}", now)
    returning = Returning(
        str(target), (state.returning.attempt if state.returning else 0) + 1, event.actor, event.reason
    )
    serving = routes.adapter or "the base model"
    note = f"going back to {target}, asked by {why}; it is being loaded, {serving} serves on"
    command = VerifyAdapter(returning.adapter, returning.attempt)
    return step.then(Transition(replace(step.state, returning=returning), (command,), note))


def resume(state: State) -> Transition:
    """After a restart: load and verify again."""
    if state.returning is None:
        return Transition(state)
    returning = replace(state.returning, attempt=state.returning.attempt + 1)
    command = VerifyAdapter(returning.adapter, returning.attempt)
    return Transition(replace(state, returning=returning), (command,), f"going back to {returning.adapter} resumes")


def verified(event: AdapterVerified, state: State, now: float) -> Transition | None:
    """The adapter to go back to is proven: flip. None when the event speaks of something else."""
    back = state.returning
    if back is None or (back.adapter, back.attempt) != (event.adapter, event.attempt):
        return None
    return _flip(state, back.adapter, f"{back.actor}: {back.reason}; verified: {event.detail}", now)


def verification_failed(event: VerificationFailed, state: State) -> Transition | None:
    """It cannot serve: what serves stays. None when the event speaks of something else."""
    back = state.returning
    if back is None or (back.adapter, back.attempt) != (event.adapter, event.attempt):
        return None
    note = f"cannot go back to {back.adapter}: {event.reason}; {state.routes.adapter or 'the base model'} serves on"
    return Transition(replace(state, returning=None), note=note)


def _flip(state: State, target: str | None, why: str, now: float) -> Transition:
    """Everything to `target`; the undone adapter does not stay as anybody's fallback."""
    undone = state.routes.adapter
    routes = replace(without_rollout(state.routes), adapter=target, previous=None)
    rollout = state.rollout
    if rollout and rollout.adapter == undone and rollout.phase in (RolloutPhase.SETTLED, RolloutPhase.BAKING):
        rollout = replace(rollout, phase=RolloutPhase.ROLLED_BACK, reason=why, since=now, hold="", paused_by=None)
    elif rollout and rollout.phase.is_open:
        reason = f"the adapter it was to replace was undone by {why}"
        rollout = replace(rollout, phase=RolloutPhase.ABORTED, reason=reason, since=now, hold="", paused_by=None)
    state = replace(state, routes=routes, rollout=rollout, returning=None, incumbent_since=now)
    note = f"{undone or 'the base model'} undone by {why}; {target or 'the base model'} serves"
    step = Transition(state, (PublishRoutes(routes),), note)
    return step.then(cancel_for(state, f"its incumbent {undone or 'base model'} was undone", now))


def _without_open_rollout(state: State, reason: str, now: float) -> Transition:
    return abort(state, state.open_rollout, reason, now) if state.open_rollout else Transition(state)
