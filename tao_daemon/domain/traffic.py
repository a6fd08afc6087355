"""What gateways count and tell the daemon: the evidence of a canary, and what a swap waits for.

A conversation belongs to one arm of a rollout for as long as the split stands. Its *first* failure of a kind counts,
for the arm it happened in, and no later one: a conversation that keeps failing is one failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

DURATION_EDGES: tuple[float, ...] = tuple(0.001 * 1.15**step for step in range(96))
"""Upper edges of the duration histogram, seconds: 1 ms to 10 minutes in steps of 15 %; one more bucket above."""


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One arm of the split. Failures are conversations whose first failure of the kind was in this arm."""

    requests: int = 0
    conversations: int = 0
    """Conversations first seen in this arm, so that each counts once."""
    errors: int = 0
    """Server errors, cut streams, and answers that another version had to give."""
    slow: int = 0
    """Answers that took longer than `Routes.slow_seconds`."""
    truncated: int = 0
    """Answers cut off by their length limit (finish_reason "length")."""

    def __add__(self, other: ArmCounts) -> ArmCounts:
        return ArmCounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Both arms under one generation of the routes."""

    incumbent: ArmCounts = field(default_factory=ArmCounts)
    candidate: ArmCounts = field(default_factory=ArmCounts)

    def __add__(self, other: SplitCounts) -> SplitCounts:
        return SplitCounts(self.incumbent + other.incumbent, self.candidate + other.candidate)


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """What one gateway process says every second or so. Counters only grow while the process lives."""

    gateway: str
    """Unique per process, not per host: a restarted gateway is another one, whose counters start at 0."""
    generation: int
    """Of the routes it uses for new requests."""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    """Requests being answered now, by the model's name on the servers."""
    splits: Mapping[int, SplitCounts] = field(default_factory=dict)
    """By the generation that a request was bound under; the latest `KEPT_GENERATIONS` of them."""
    durations: tuple[int, ...] = ()
    """Answers that were completed (2xx) per bucket of DURATION_EDGES, whatever the version."""
    captured: int = 0
    capture_dropped: int = 0
    """Prompts that did not reach Kafka: the queue was full, they were too large, or it failed."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """Requests that ended, by the kind of version that answered (or should have): see `gateway.routing.Kind`."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Those of them that ended with 5xx or were cut off in the middle."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What clients met with one kind of version within some minutes."""

    kind: str
    requests: int
    failed: int


KEPT_GENERATIONS = 8
"""Generations whose counts a gateway keeps: the daemon has asked for them many times by then."""
