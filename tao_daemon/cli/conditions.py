"""What `tao-daemon wait` waits for. Pure functions over status documents: reached, not yet, or never any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tao_daemon.cli.headline import is_open

Document = Mapping[str, Any]


class Condition(StrEnum):
    READY = "ready"
    IDLE = "idle"
    ROUND_FINISHED = "round-finished"
    ACCEPTED = "accepted"
    SHADOW = "shadow"
    CANARY = "canary"
    BAKING = "baking"
    SETTLED = "settled"
    ENDED = "ended"


MEANINGS = {
    Condition.READY: "the daemon answers, and every replica serves what it should",
    Condition.IDLE: "no round runs and no rollout is open",
    Condition.ROUND_FINISHED: "the round has ended, whatever came of it",
    Condition.ACCEPTED: "the gate accepted the round's candidate",
    Condition.SHADOW: "the rollout has come to the shadow",
    Condition.CANARY: "… to the canary: clients see answers of it",
    Condition.BAKING: "… to baking: it answers everything",
    Condition.SETTLED: "… to its end: it serves. At once when the latest rollout settled and none is open",
    Condition.ENDED: "no rollout is open; whichever way it went",
}
_OF_ROUNDS = (Condition.ROUND_FINISHED, Condition.ACCEPTED)
_ORDER = ("staged", "shadow", "canary", "baking", "settled")


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for, pinned when the waiting begins: another round or rollout is not mistaken for it."""

    condition: Condition
    round: int | None = None
    rollout: str | None = None
    past: float | None = None
    """When the latest rollout began, if it was over already: only a later one counts."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Neither reached nor lost: not yet."""

    text: str
    reached: bool = False
    lost: bool = False


def begin(condition: Condition, status: Document, *, round: int | None, rollout: str | None) -> Goal:
    """The goal as of now: the round that runs or else the next one; the open rollout or else the next one."""
    if condition in _OF_ROUNDS:
        return Goal(condition, round=round or next_round(status, running_counts=True))
    latest = status["rollout"]
    if rollout is None and is_open(latest):
        rollout = latest["adapter"]
    return Goal(condition, rollout=rollout, past=latest["started_at"] if latest and rollout is None else None)


def next_round(status: Document, *, running_counts: bool) -> int:
    """The number of the running round if that counts, else of the one after everything there is."""
    running, last = status["round"], status["last_round"]
    if running:
        return int(running["id"]) + (0 if running_counts else 1)
    return int(last["id"]) + 1 if last else 1


def wants(goal: Goal, status: Document) -> str | None:
    """The path of what must be known besides the status; None when the status is enough."""
    latest, last = status["rollout"], status["last_round"]
    if goal.condition is Condition.READY:
        return "/readyz"
    if goal.condition in _OF_ROUNDS:
        return f"/v1/rounds/{goal.round}" if last and last["id"] > (goal.round or 0) else None
    other = goal.rollout is not None and (latest is None or latest["adapter"] != goal.rollout)
    return "/v1/rollouts" if other else None


def check(goal: Goal, status: Document, besides: Document | None) -> Finding:
    """How it stands. `besides` is what `wants` asked for; None when that does not exist."""
    match goal.condition:
        case Condition.READY:
            return _ready(status, besides)
        case Condition.IDLE:
            return _idle(status)
        case Condition.ROUND_FINISHED | Condition.ACCEPTED:
            return _round(goal, status, besides)
        case _:
            return _rollout(goal, status, besides)


def _ready(status: Document, besides: Document | None) -> Finding:
    if not besides or not besides["ready"]:
        return Finding(str((besides or {}).get("reason") or "the daemon is not ready"))
    if unready := status["fleet"]["unready"]:
        return Finding(f"not ready for adapters: {', '.join(unready)}")
    return Finding("the daemon is ready", reached=True)


def _idle(status: Document) -> Finding:
    if running := status["round"]:
        return Finding(_running(running))
    if status["next_round"]["due"]:
        return Finding(f"a round starts as soon as it can: {status['next_round']['due']}")
    if is_open(status["rollout"]):
        return Finding(_moving(status["rollout"]))
    if status["returning_to"]:
        return Finding(f"going back to {status['returning_to']}")
    return Finding("no round runs and no rollout is open", reached=True)


def _round(goal: Goal, status: Document, besides: Document | None) -> Finding:
    running, last = status["round"], status["last_round"]
    if last and last["id"] == goal.round:
        return _ended(goal, last["outcome"], last["reason"])
    if last and last["id"] > (goal.round or 0):
        if besides is None or "outcome" not in besides:
            return Finding(f"there is no report of round {goal.round}", lost=True)
        return _ended(goal, besides["outcome"], besides.get("outcome_reason", ""))
    if running:
        return Finding(_running(running))
    trigger = status["next_round"]["due"] or status["next_round"]["trigger"]
    return Finding(f"round {goal.round} has not started: {trigger}")


def _ended(goal: Goal, outcome: str, reason: str) -> Finding:
    good = goal.condition is Condition.ROUND_FINISHED or outcome == "accepted"
    return Finding(f"round {goal.round} ended {outcome}: {reason}", reached=good, lost=not good)


def _rollout(goal: Goal, status: Document, besides: Document | None) -> Finding:
    latest = status["rollout"]
    if goal.rollout is None and (latest is None or latest["started_at"] == goal.past):
        return _none_open(goal, latest)
    if goal.rollout is not None and (latest is None or latest["adapter"] != goal.rollout):
        return _past_rollout(goal, besides)
    return _stands(goal, latest)


def _none_open(goal: Goal, latest: Document | None) -> Finding:
    if goal.condition is Condition.ENDED:
        return Finding("no rollout is open", reached=True)
    if goal.condition is Condition.SETTLED and latest and latest["phase"] == "settled":
        return _stands(goal, latest)
    return Finding("no rollout is open; waiting for the next")


def _past_rollout(goal: Goal, besides: Document | None) -> Finding:
    found = [each for each in (besides or {}).get("rollouts", []) if each["adapter"] == goal.rollout]
    if not found:
        return Finding(f"there is no rollout of {goal.rollout} yet")
    outcome = found[0]["outcome"]
    if outcome in _ORDER[:-1]:
        outcome = "superseded"
    return _stands(goal, {"adapter": goal.rollout, "phase": outcome, "reason": found[0]["steps"][-1]["note"]})


def _stands(goal: Goal, rollout: Document) -> Finding:
    phase, adapter = rollout["phase"], rollout["adapter"]
    if not is_open(rollout):
        good = phase == "settled" or goal.condition is Condition.ENDED
        text = f"the rollout of {adapter} is {phase.replace('_', ' ')}: {rollout['reason']}"
        return Finding(text, reached=good, lost=not good)
    reached = goal.condition is not Condition.ENDED and _ORDER.index(phase) >= _ORDER.index(goal.condition.value)
    return Finding(_moving(rollout), reached=reached)


def follow_up(goal: Goal, status: Document) -> Goal:
    """The goal with the rollout it waited for named, once that has begun."""
    latest = status["rollout"]
    if goal.condition in (*_OF_ROUNDS, Condition.READY, Condition.IDLE) or goal.rollout or latest is None:
        return goal
    return replace(goal, rollout=latest["adapter"]) if latest["started_at"] != goal.past else goal


def _running(running: Document) -> str:
    return f"round {running['id']} {running['phase']} {int(running['progress'] * 10) * 10} %"


def _moving(rollout: Document) -> str:
    return f"{rollout['adapter']} is in {rollout['phase']}: {rollout['hold']}"
