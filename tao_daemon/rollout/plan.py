"""What an open rollout does next: advance, hold or abort. Pure, and in words that go into the audit log.

A regression aborts whatever else is true. Otherwise a pause holds, missing evidence holds, a freeze window holds,
and only evidence that is there and sufficient advances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from tao_daemon.domain.rollout import WAITS_FOR_APPROVAL, Hold, NewerCandidate, RolloutMode, RolloutPhase, RolloutState
from tao_daemon.rollout.assessment import Limits, find_regression, shadow_passed, shadow_wants

_MINUTE, _DAY = 60, 86_400
_DAYS = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")
"""Unix time begins on a Thursday."""


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """Days of the week and seconds of the day, UTC; an end not after the start lies on the next day."""

    days: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The plain values of the [rollout] section."""

    mode: RolloutMode
    newer_candidate: NewerCandidate
    fractions: tuple[float, ...]
    step_seconds: float
    step_conversations: int
    bake_seconds: float
    bake_conversations: int
    limits: Limits
    freeze: tuple[FreezeWindow, ...] = ()


class Move(StrEnum):
    ADVANCE = "advance"
    HOLD = "hold"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Step:
    """The next move and why."""

    move: Move
    reason: str
    hold: Hold | None = None
    """What holds it; None when it moves."""


def decide(rollout: RolloutState, plan: Plan, now: float, *, sighted: bool) -> Step:
    """The next move of an open rollout at Unix second `now`. `sighted`: some gateway reports its counters."""
    if regression := find_regression(rollout.evidence, plan.limits):
        return Step(Move.ABORT, regression)
    if rollout.paused_by:
        return _held(Hold.PAUSED, f"paused by {rollout.paused_by}")
    step = _by_phase(rollout, plan, now, sighted)
    frozen = step.move is Move.ADVANCE and is_frozen(plan.freeze, now)
    return _held(Hold.FREEZE, f"a freeze window; after it: {step.reason}") if frozen else step


def waits_for_person(rollout: RolloutState, plan: Plan) -> bool:
    """Whether nothing but an approval is missing."""
    return (
        plan.mode is RolloutMode.APPROVE
        and rollout.phase is RolloutPhase.SHADOW
        and rollout.approved_by is None
        and shadow_passed(rollout.evidence, plan.limits)
    )


def is_frozen(windows: Sequence[FreezeWindow], now: float) -> bool:
    """Whether a window covers Unix second `now`."""
    day, second = divmod(int(now), _DAY)
    today, yesterday = _DAYS[day % 7], _DAYS[(day - 1) % 7]
    for window in windows:
        overnight = window.end <= window.start
        end = _DAY if overnight else window.end
        if today in window.days and window.start <= second < end:
            return True
        if overnight and yesterday in window.days and second < window.end:
            return True
    return False


def clock_seconds(text: str) -> int:
    """Seconds of the day of HH:MM."""
    hours, minutes = text.split(":")
    return (int(hours) * 60 + int(minutes)) * _MINUTE


def _held(hold: Hold, reason: str) -> Step:
    return Step(Move.HOLD, reason, hold)


def _by_phase(rollout: RolloutState, plan: Plan, now: float, sighted: bool) -> Step:
    match rollout.phase:
        case RolloutPhase.STAGED:
            return _held(Hold.VERIFYING, "it is being loaded and verified")
        case RolloutPhase.SHADOW:
            return _in_shadow(rollout, plan)
        case RolloutPhase.CANARY:
            return _in_canary(rollout, plan, now, sighted)
        case RolloutPhase.BAKING:
            return _in_baking(rollout, plan, now, sighted)
        case RolloutPhase.SETTLED | RolloutPhase.ABORTED | RolloutPhase.ROLLED_BACK | RolloutPhase.SUPERSEDED:
            raise AssertionError(f"a rollout that is {rollout.phase} does not move")
        case _:
            assert_never(rollout.phase)


def _in_shadow(rollout: RolloutState, plan: Plan) -> Step:
    if not shadow_passed(rollout.evidence, plan.limits):
        return _held(Hold.EVIDENCE, f"shadow: {shadow_wants(rollout.evidence, plan.limits)}")
    tally = rollout.evidence.shadow
    passed = f"shadow passed: {tally.pairs} pairs, mean difference {tally.total / max(1, tally.pairs):+.3f}"
    match plan.mode:
        case RolloutMode.OBSERVE:
            return Step(Move.ABORT, f"{passed}; rollout.mode is observe: it would have gone on to live traffic")
        case RolloutMode.APPROVE if rollout.approved_by is None:
            return _held(Hold.APPROVAL, f"{passed}; {WAITS_FOR_APPROVAL}")
        case _:
            return Step(Move.ADVANCE, f"{passed}; approved by {rollout.approved_by or 'rollout.mode = auto'}")


def _in_canary(rollout: RolloutState, plan: Plan, now: float, sighted: bool) -> Step:
    place = f"canary step {rollout.step + 1} of {len(plan.fractions)}"
    if plan.step_conversations and not sighted:
        return _held(Hold.NO_GATEWAY, f"{place}: no gateway reports its counters, so nothing is known")
    counts = rollout.evidence.steps[-1].counts
    seen = counts.candidate.conversations
    if seen < plan.step_conversations:
        return _held(Hold.EVIDENCE, f"{place}: {seen} of {plan.step_conversations} conversations")
    if plan.step_conversations and not counts.incumbent.conversations:
        return _held(Hold.EVIDENCE, f"{place}: no conversation of the incumbent to compare with")
    if now - rollout.since < plan.step_seconds:
        return _held(Hold.EVIDENCE, f"{place}: takes at least {plan.step_seconds:g} s")
    return Step(Move.ADVANCE, f"{place} passed: {seen} conversations without a regression")


def _in_baking(rollout: RolloutState, plan: Plan, now: float, sighted: bool) -> Step:
    if plan.bake_conversations and not sighted:
        return _held(Hold.NO_GATEWAY, "baking: no gateway reports its counters, so nothing is known")
    seen = rollout.evidence.steps[-1].counts.candidate.conversations
    if seen < plan.bake_conversations:
        return _held(Hold.EVIDENCE, f"baking: {seen} of {plan.bake_conversations} conversations")
    if now - rollout.since < plan.bake_seconds:
        return _held(Hold.EVIDENCE, f"baking: takes at least {plan.bake_seconds:g} s")
    pairs = rollout.evidence.shadow.pairs
    return Step(Move.ADVANCE, f"baked: {seen} conversations and {pairs} shadow pairs without a regression")
