"""A rollout: the delivery of one adapter into serving, watched and reversible.

staged → shadow → canary (step by step) → baking → settled | aborted | rolled_back | superseded
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tao_daemon.domain.traffic import SplitCounts

BASE = "base"
"""How people name the base model where an adapter is expected."""

WAITS_FOR_APPROVAL = "waits for `tao-daemon rollout approve`"
"""Ends the `hold` of a rollout that nothing but a person keeps back."""


class RolloutMode(StrEnum):
    """Who decides that an accepted candidate serves."""

    OBSERVE = "observe"
    """Nobody: after the shadow the rollout ends, and says what it would have done."""
    APPROVE = "approve"
    """A person, with `tao-daemon rollout approve`; the shadow's evidence is there to look at."""
    AUTO = "auto"
    """The gate and the evidence alone."""


class NewerCandidate(StrEnum):
    """What a newer candidate means to an open rollout. There is never more than one."""

    WAIT = "wait"
    """No round starts before the rollout ends."""
    SUPERSEDE = "supersede"
    """While a rollout waits for a person, rounds go on; a candidate that passes takes its place."""


class RolloutPhase(StrEnum):
    STAGED = "staged"
    """Accepted by the gate; being loaded and verified on every server."""
    SHADOW = "shadow"
    """Answers live prompts beside the incumbent; no client sees an answer of it."""
    CANARY = "canary"
    """Answers a fraction of the conversations."""
    BAKING = "baking"
    """Answers everything, still watched; undoes itself on a regression."""
    SETTLED = "settled"
    ABORTED = "aborted"
    """Ended before it served everything."""
    ROLLED_BACK = "rolled_back"
    """Served everything, and was undone."""
    SUPERSEDED = "superseded"
    """A newer candidate took its place."""

    @property
    def is_open(self) -> bool:
        return self in (RolloutPhase.STAGED, RolloutPhase.SHADOW, RolloutPhase.CANARY, RolloutPhase.BAKING)


class Hold(StrEnum):
    """Why an open rollout does not move now."""

    VERIFYING = "verifying"
    """It is being loaded and verified."""
    PAUSED = "paused"
    APPROVAL = "approval"
    """Nothing but a person's approval is missing."""
    FREEZE = "freeze"
    """It would move, and a freeze window covers the time."""
    NO_GATEWAY = "no_gateway"
    """Conversations are asked for, and no gateway reports any."""
    EVIDENCE = "evidence"
    """Pairs, conversations or time are missing."""


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """Both versions' answers to one live prompt, scored: `difference` is candidate − incumbent, in [−1, 1]."""

    prompt_id: str
    difference: float
    candidate_failed: bool = False
    """The candidate gave no answer where the incumbent did; the difference is then −1."""


@dataclass(frozen=True, slots=True)
class ShadowTally:
    """Everything the shadow's e-processes remember of the pairs. See `rollout.eprocess`."""

    pairs: int = 0
    total: float = 0.0
    """Sum of the differences."""
    candidate_failures: int = 0
    skipped: int = 0
    """Pairs that could not be scored: no incumbent's answer, no adapter on a server, or no score."""
    worse: tuple[float, ...] = ()
    """Log-wealth of the bets on "worse", one per λ of the grid."""
    not_inferior: tuple[float, ...] = ()
    """Log-wealth of the bets on "not inferior", one per λ of the grid."""


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What gateways counted under one canary step (or in baking)."""

    generation: int
    fraction: float
    """The candidate's share of conversations."""
    counts: SplitCounts = field(default_factory=SplitCounts)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an open rollout has seen since it began (baking starts afresh)."""

    shadow: ShadowTally = field(default_factory=ShadowTally)
    steps: tuple[StepCounts, ...] = ()
    """The last one is the present step."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """The latest rollout. Only an open one still moves."""

    adapter: str
    round: int
    phase: RolloutPhase
    attempt: int
    """Grows with every try at loading and verifying; results of older ones are ignored."""
    reason: str
    since: float
    """Unix second at which the phase, or the canary step, began."""
    started_at: float
    step: int = 0
    """Index of the canary's fraction."""
    approved_by: str | None = None
    paused_by: str | None = None
    """Who paused it and why; None while it may move."""
    hurried: bool = False
    """Promoted in full while it was being verified: it serves everything as soon as it is, and is not paused."""
    hold: str = ""
    """Why it does not move now, in words."""
    evidence: Evidence = field(default_factory=Evidence)


def traffic_share(phase: str, fraction: float) -> float:
    """Share of the conversations that a rollout's adapter answers, in [0, 1]; `fraction` is that of the routes."""
    if phase == RolloutPhase.CANARY:
        return fraction
    return 1.0 if phase in (RolloutPhase.BAKING, RolloutPhase.SETTLED) else 0.0


@dataclass(frozen=True, slots=True)
class Routes:
    """What gateways resolve the public model name with. A higher generation replaces a lower one."""

    generation: int
    adapter: str | None
    """The adapter behind the public name; None means the base model."""
    previous: str | None = None
    """Still resident on the servers, so that going back needs no load."""
    candidate: str | None = None
    """The adapter that answers `fraction` of the conversations."""
    fraction: float = 0.0
    salt: str = ""
    """Of the rollout: decides with a conversation's identity which arm it is in."""
    slow_seconds: float | None = None
    """An answer that takes longer counts as slow; None while nothing is known."""
    unready: tuple[str, ...] = ()
    """Base URLs of replicas that must not be asked for adapters: not verified since they (re)started."""

    @property
    def named(self) -> tuple[str, ...]:
        """Every adapter that a request may be bound to."""
        return tuple(name for name in (self.adapter, self.previous, self.candidate) if name is not None)

    def to_json(self) -> dict[str, Any]:
        """The value of `routes.json` and of GET /v1/routes."""
        return {**asdict(self), "unready": list(self.unready)}

    @classmethod
    def from_json(cls, value: Any) -> Routes:
        """The inverse of `to_json`; keys that this version does not know are ignored. Raises ValueError."""
        if not isinstance(value, Mapping):
            raise ValueError("routes are not a JSON object")
        generation, fraction, slow = value.get("generation"), value.get("fraction", 0.0), value.get("slow_seconds")
        if type(generation) is not int or generation < 0:
            raise ValueError(f"routes have no valid generation: {generation!r}")
        names = [value.get(key) for key in ("adapter", "previous", "candidate")]
        if not all(name is None or (isinstance(name, str) and name) for name in names):
            raise ValueError(f"routes of generation {generation} name no valid adapters: {names!r}")
        if not _is_number(fraction) or not 0.0 <= fraction <= 1.0:
            raise ValueError(f"routes of generation {generation} have no valid fraction: {fraction!r}")
        if slow is not None and (not _is_number(slow) or not slow > 0.0):
            raise ValueError(f"routes of generation {generation} have no valid slow_seconds: {slow!r}")
        unready = value.get("unready", [])
        if not isinstance(unready, list) or not all(isinstance(url, str) for url in unready):
            raise ValueError(f"routes of generation {generation} have no valid list of unready replicas")
        salt = str(value.get("salt", ""))
        return cls(generation, names[0], names[1], names[2], float(fraction), salt, slow, tuple(unready))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
