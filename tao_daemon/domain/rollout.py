"""A rollout: the delivery of one adapter into serving.

staged → swapping → settled | aborted | rolled_back
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RolloutMode(StrEnum):
    """Who decides that an accepted candidate serves."""

    OBSERVE = "observe"
    """Nobody: the rollout stays staged; tell what would have happened."""
    APPROVE = "approve"
    """A person, with `tao-daemon rollout approve`."""
    AUTO = "auto"
    """The gate alone."""


class RolloutPhase(StrEnum):
    STAGED = "staged"
    SWAPPING = "swapping"
    SETTLED = "settled"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"

    @property
    def is_open(self) -> bool:
        return self in (RolloutPhase.STAGED, RolloutPhase.SWAPPING)


@dataclass(frozen=True, slots=True)
class RolloutState:
    """The latest rollout. Only an open one still moves."""

    adapter: str
    round: int
    phase: RolloutPhase
    attempt: int
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Routes:
    """What gateways resolve the public model name with. A higher generation replaces a lower one."""

    generation: int
    adapter: str | None
    """The adapter behind the public name; None means the base model."""
    previous: str | None = None
    """Still resident on the servers, so that going back needs no load."""
