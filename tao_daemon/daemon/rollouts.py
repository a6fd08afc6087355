"""How events move a rollout. Pure; `rollout.plan` decides, this turns decisions into states, routes and words.

staged → (verified) shadow → canary step by step → baking → settled; a regression or a person ends it anywhere
"""

from __future__ import annotations

from dataclasses import replace

from tao_daemon.daemon.rounds import cancel_for
from tao_daemon.daemon.state import Policy, State, Transition, refusal
from tao_daemon.domain.commands import PublishRoutes, VerifyAdapter
from tao_daemon.domain.events import (
    AdapterUnservable,
    AdapterVerified,
    RolloutAborted,
    RolloutApproved,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    ShadowScored,
    TrafficMeasured,
    VerificationFailed,
)
from tao_daemon.domain.rollout import (
    Evidence,
    RolloutMode,
    RolloutPhase,
    RolloutState,
    Routes,
    StepCounts,
)
from tao_daemon.domain.traffic import ArmCounts, SplitCounts
from tao_daemon.rollout.assessment import find_regression
from tao_daemon.rollout.eprocess import observe
from tao_daemon.rollout.plan import Move, decide, waits_for_person

_REMEMBERED = 16
"""Adapters that settled and are remembered by name."""
_HURRIED = "promoted in full; it serves as soon as it is verified"
_WATCHED = (RolloutPhase.SHADOW, RolloutPhase.CANARY, RolloutPhase.BAKING)


def stage(state: State, adapter: str, round_id: int, now: float) -> Transition:
    """An accepted candidate begins its rollout; one that is open gives way to it."""
    older = Transition(state)
    if opened := state.open_rollout:
        older = _end(state, opened, RolloutPhase.SUPERSEDED, f"{adapter} is newer and passed the gate too", now)
    rollout = RolloutState(adapter, round_id, RolloutPhase.STAGED, 0, "the gate passed", since=now, started_at=now)
    return older.then(verify(older.state, rollout, f"{adapter} is staged", now))


def verify(state: State, rollout: RolloutState, why: str, now: float) -> Transition:
    """Load it everywhere and prove that it serves, under the next attempt."""
    rollout = replace(rollout, attempt=rollout.attempt + 1, since=now, hold="it is being loaded and verified")
    command = VerifyAdapter(rollout.adapter, rollout.attempt)
    return Transition(replace(state, rollout=rollout), (command,), why)


def verified(event: AdapterVerified, state: State, now: float) -> Transition | None:
    """The staged adapter is proven: it goes into the shadow. None when the event speaks of something else."""
    rollout = _being_verified(state, event.adapter, event.attempt)
    if rollout is None:
        return None
    if rollout.hurried and not rollout.paused_by:
        return _settle(state, rollout, f"promoted in full; verified: {event.detail}", now)
    hold = f"paused by {rollout.paused_by}" if rollout.paused_by else "the shadow begins"
    rollout = replace(rollout, phase=RolloutPhase.SHADOW, since=now, reason=event.detail, hold=hold)
    return Transition(replace(state, rollout=rollout), note=f"{event.adapter} is verified, shadow: {event.detail}")


def verification_failed(event: VerificationFailed, state: State, now: float) -> Transition | None:
    """The staged adapter cannot serve. None when the event speaks of something else."""
    rollout = _being_verified(state, event.adapter, event.attempt)
    return _end(state, rollout, RolloutPhase.ABORTED, event.reason, now) if rollout else None


def unservable(event: AdapterUnservable, state: State, now: float) -> Transition:
    """A replica can no longer be given the adapter: an open rollout of it ends, and it is nobody's way back."""
    rollout, old = state.open_rollout, state.routes
    if rollout and rollout.adapter == event.adapter:
        return abort(state, rollout, event.reason, now)
    note = f"{event.adapter} cannot be loaded any more: {event.reason}"
    if old.previous != event.adapter:
        return Transition(state, note=note)
    routes = bumped(old, previous=None)
    note += "; an undo goes to the base model"
    return Transition(replace(state, routes=routes), (PublishRoutes(routes),), note)


def scored(event: ShadowScored, state: State, policy: Policy, now: float) -> Transition:
    """Shadow pairs: they may abort at once, and count when the traffic is next looked at."""
    rollout = _watched(state, event.adapter)
    if rollout is None or (event.phase is RolloutPhase.BAKING) != (rollout.phase is RolloutPhase.BAKING):
        return Transition(state, note="ignored: shadow pairs of a phase that is over")
    tally = observe(rollout.evidence.shadow, event.pairs, event.skipped, policy.plan.limits.margin)
    rollout = replace(rollout, evidence=replace(rollout.evidence, shadow=tally))
    state = replace(state, rollout=rollout)
    if regression := find_regression(rollout.evidence, policy.plan.limits):
        return abort(state, rollout, regression, now)
    return Transition(state, note=f"shadow of {event.adapter}: {tally.pairs} pairs")


def measured(event: TrafficMeasured, state: State, policy: Policy, now: float) -> Transition:
    """A look at the traffic: the one place where a rollout moves by itself."""
    rollout = _watched(state, event.adapter)
    if rollout is None:
        return Transition(state, note="ignored: traffic of a rollout that does not move")
    rollout = replace(rollout, evidence=_with_counts(rollout.evidence, event.counts))
    state = replace(state, rollout=rollout)
    step = decide(rollout, policy.plan, now, sighted=event.counts is not None)
    match step.move:
        case Move.ABORT:
            return abort(state, rollout, step.reason, now)
        case Move.ADVANCE:
            return _advance(state, rollout, policy, step.reason, event.slow_seconds, now)
        case Move.HOLD:
            return Transition(replace(state, rollout=replace(rollout, hold=step.reason)), note=step.reason)


def approved(event: RolloutApproved, state: State, policy: Policy) -> Transition:
    rollout = state.open_rollout
    if rollout is None or rollout.phase not in (RolloutPhase.STAGED, RolloutPhase.SHADOW):
        return refusal(state, "no rollout waits for an approval; there is nothing to approve")
    if policy.plan.mode is RolloutMode.OBSERVE:
        return refusal(state, "rollout.mode is observe: nothing goes on to live traffic; change it and restart")
    rollout = replace(rollout, approved_by=f"{event.actor}: {event.reason}", hold="approved")
    note = f"{rollout.adapter} approved by {event.actor}: {event.reason}"
    return Transition(replace(state, rollout=rollout), note=note)


def promoted(event: RolloutPromoted, state: State, policy: Policy, now: float) -> Transition:
    rollout = state.open_rollout
    if rollout is None:
        return refusal(state, "no rollout is open; there is nothing to promote")
    if policy.plan.mode is RolloutMode.OBSERVE:
        return refusal(state, "rollout.mode is observe: nothing goes on to live traffic; change it and restart")
    who = f"promoted{' in full' if event.full else ''} by {event.actor}: {event.reason}"
    rollout = replace(rollout, paused_by=None, approved_by=rollout.approved_by or f"{event.actor}: {event.reason}")
    if rollout.phase is RolloutPhase.STAGED:
        if not event.full:
            return refusal(state, f"{rollout.adapter} is being verified; promote it when the shadow runs")
        rollout = replace(rollout, hurried=True, hold=_HURRIED)
        return Transition(replace(state, rollout=rollout), note=f"{rollout.adapter} {who}; it is being verified")
    state = replace(state, rollout=rollout)
    if event.full:
        return _settle(state, rollout, who, now)
    return _advance(state, rollout, policy, who, event.slow_seconds, now)


def aborted(event: RolloutAborted, state: State, now: float) -> Transition:
    rollout = state.open_rollout
    if rollout is None:
        return refusal(state, "no rollout is open; there is nothing to abort (`rollout undo` takes back a settled one)")
    return abort(state, rollout, f"{event.actor}: {event.reason}", now)


def paused(event: RolloutPaused, state: State) -> Transition:
    rollout = state.open_rollout
    if rollout is None or rollout.paused_by:
        return refusal(state, "no rollout moves; there is nothing to pause")
    who = f"{event.actor}: {event.reason}"
    rollout = replace(rollout, paused_by=who, hold=f"paused by {who}")
    return Transition(replace(state, rollout=rollout), note=f"rollout of {rollout.adapter} paused by {who}")


def resumed(event: RolloutResumed, state: State, now: float) -> Transition:
    """It may move again. One that was promoted in full, and verified while it was paused, serves."""
    rollout = state.open_rollout
    if rollout is None or not rollout.paused_by:
        return refusal(state, "no rollout is paused; there is nothing to resume")
    who = f"resumed by {event.actor}: {event.reason}"
    if rollout.hurried and rollout.phase is RolloutPhase.SHADOW:
        return _settle(state, rollout, f"promoted in full; {who}", now)
    hold = _HURRIED if rollout.hurried and rollout.phase is RolloutPhase.STAGED else "resumed"
    rollout = replace(rollout, paused_by=None, hold=hold)
    return Transition(replace(state, rollout=rollout), note=f"rollout of {rollout.adapter} {who}")


def abort(state: State, rollout: RolloutState, reason: str, now: float) -> Transition:
    """End an open rollout. In baking the previous version serves again."""
    baking = rollout.phase is RolloutPhase.BAKING
    return _end(state, rollout, RolloutPhase.ROLLED_BACK if baking else RolloutPhase.ABORTED, reason, now)


def leaves_room_for_round(state: State, policy: Policy) -> bool:
    """Whether a round may start beside the rollout: none is open, or it waits for a person and may be superseded."""
    rollout = state.open_rollout
    if rollout is None:
        return state.returning is None
    return policy.plan.newer_candidate == "supersede" and waits_for_person(rollout, policy.plan)


def bumped(routes: Routes, **changes: object) -> Routes:
    """The next generation of routes."""
    return replace(routes, generation=routes.generation + 1, **changes)  # type: ignore[arg-type]


def without_rollout(routes: Routes) -> Routes:
    """The next generation, in which no rollout splits or measures anything."""
    return bumped(routes, candidate=None, fraction=0.0, salt="", slow_seconds=None)


def _advance(
    state: State, rollout: RolloutState, policy: Policy, reason: str, slow_seconds: float | None, now: float
) -> Transition:
    fractions = policy.plan.fractions
    if rollout.phase is RolloutPhase.BAKING:
        return _settle(state, rollout, reason, now)
    following = rollout.step + 1 if rollout.phase is RolloutPhase.CANARY else 0
    if following >= len(fractions):
        return _bake(state, rollout, reason, now)
    routes = bumped(
        state.routes,
        candidate=rollout.adapter,
        fraction=fractions[following],
        salt=_salt(rollout),
        # Fixed before the candidate had any traffic that could have moved it.
        slow_seconds=state.routes.slow_seconds or slow_seconds,
    )
    steps = (*rollout.evidence.steps, StepCounts(routes.generation, routes.fraction))
    rollout = replace(
        rollout,
        phase=RolloutPhase.CANARY,
        step=following,
        since=now,
        reason=reason,
        hold=f"canary step {following + 1} of {len(fractions)} begins",
        evidence=replace(rollout.evidence, steps=steps),
    )
    note = f"{reason}; {rollout.adapter} answers {routes.fraction:.0%} of the conversations"
    return Transition(replace(state, routes=routes, rollout=rollout), (PublishRoutes(routes),), note)


def _bake(state: State, rollout: RolloutState, reason: str, now: float) -> Transition:
    old = state.routes
    routes = bumped(
        old,
        adapter=rollout.adapter,
        previous=old.adapter,
        candidate=None,
        fraction=0.0,
        # Another one, so that gateways count every conversation afresh: those of the canary too.
        salt=f"{_salt(rollout)}/baking",
    )
    rollout = replace(
        rollout,
        phase=RolloutPhase.BAKING,
        since=now,
        reason=reason,
        hold="baking begins",
        evidence=Evidence(steps=(StepCounts(routes.generation, 1.0),)),
    )
    note = f"{reason}; {rollout.adapter} answers everything, {old.adapter or 'the base model'} stays for undo"
    state = replace(state, routes=routes, rollout=rollout, incumbent_since=now)
    step = Transition(state, (PublishRoutes(routes),), note)
    return step.then(cancel_for(state, "its incumbent was replaced by a rollout", now))


def _settle(state: State, rollout: RolloutState, reason: str, now: float) -> Transition:
    step = Transition(state)
    if rollout.phase is not RolloutPhase.BAKING:
        step = _bake(state, rollout, reason, now)
    routes = without_rollout(step.state.routes)
    rollout = replace(rollout, phase=RolloutPhase.SETTLED, reason=reason, since=now, hold="", paused_by=None)
    served = (rollout.adapter, *(name for name in state.served if name != rollout.adapter))[:_REMEMBERED]
    state = replace(step.state, routes=routes, rollout=rollout, served=served)
    return step.then(Transition(state, (PublishRoutes(routes),), f"{rollout.adapter} is settled: {reason}"))


def _end(state: State, rollout: RolloutState, phase: RolloutPhase, reason: str, now: float) -> Transition:
    """A rollout ends without serving: in the canary its share goes back, in baking everything does."""
    ended = replace(rollout, phase=phase, reason=reason, since=now, hold="", paused_by=None)
    state, old = replace(state, rollout=ended), state.routes
    what = f"rollout of {rollout.adapter} {phase.value.replace('_', ' ')}: {reason}"
    match rollout.phase:
        case RolloutPhase.CANARY:
            routes = without_rollout(old)
            what += f"; {routes.adapter or 'the base model'} answers everything again"
        case RolloutPhase.BAKING:
            routes = replace(without_rollout(old), adapter=old.previous, previous=None)
            what += f"; {routes.adapter or 'the base model'} serves again"
            state = replace(state, incumbent_since=now)
        case _:
            return Transition(state, note=f"{what}; no client saw an answer of it")
    state = replace(state, routes=routes)
    step = Transition(state, (PublishRoutes(routes),), what)
    if rollout.phase is RolloutPhase.BAKING:
        return step.then(cancel_for(state, f"its incumbent {rollout.adapter} was rolled back", now))
    return step


def _with_counts(evidence: Evidence, counts: tuple[SplitCounts, ...] | None) -> Evidence:
    """Counters only grow; what a restarted daemon has not heard again yet is not forgotten."""
    if not counts:
        return evidence
    steps = tuple(
        replace(step, counts=_larger(step.counts, seen)) for step, seen in zip(evidence.steps, counts, strict=False)
    )
    return replace(evidence, steps=steps + evidence.steps[len(steps) :])


def _larger(one: SplitCounts, other: SplitCounts) -> SplitCounts:
    return SplitCounts(_larger_arm(one.incumbent, other.incumbent), _larger_arm(one.candidate, other.candidate))


def _larger_arm(one: ArmCounts, other: ArmCounts) -> ArmCounts:
    """The one that has seen more: counters of one arm grow together."""
    return max(one, other, key=lambda arm: (arm.requests, arm.conversations))


def _salt(rollout: RolloutState) -> str:
    """Another one per rollout, so that the same people are not always the first to try."""
    return f"{rollout.adapter}/{rollout.round}"


def _being_verified(state: State, adapter: str, attempt: int) -> RolloutState | None:
    rollout = state.rollout
    if rollout and rollout.phase is RolloutPhase.STAGED and (rollout.adapter, rollout.attempt) == (adapter, attempt):
        return rollout
    return None


def _watched(state: State, adapter: str) -> RolloutState | None:
    rollout = state.rollout
    return rollout if rollout and rollout.adapter == adapter and rollout.phase in _WATCHED else None
