"""What is worth knowing while it happens: observations for metrics, logs and the console.

Signals never move the machine, are not journaled, and carry no text of prompts or completions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tao_daemon.domain.round import Phase


@dataclass(frozen=True, slots=True)
class PromptsBuffered:
    """One committed batch."""

    train: int
    held_out: int
    excluded: int
    duplicates: int
    """Records that were already buffered."""


@dataclass(frozen=True, slots=True)
class RecordsRejected:
    """Records that went to the dead-letter topic (or were reported, for an import)."""

    code: str
    count: int


@dataclass(frozen=True, slots=True)
class OffsetGapFound:
    """The broker no longer has records between what was buffered and its oldest."""

    topic: str
    partition: int
    missing: int


@dataclass(frozen=True, slots=True)
class IntakeStateChanged:
    """`consuming`, or why not: `paused`, `broker_unreachable`, `buffer_failed`, `stopped`."""

    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class IntakeLagMeasured:
    topic: str
    partition: int
    records: int


@dataclass(frozen=True, slots=True)
class PhaseProgressed:
    round: int
    phase: Phase
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class CompletionsSampled:
    """One group arrived."""

    strategy_counts: tuple[tuple[str, int], ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class SamplesLost:
    """Sampling went on without something it asked for.

    `refused` and `unavailable` count requests (one prompt under one strategy): the server would not take it
    (HTTP 400, 413, 422), or could not be reached after retries. `malformed` counts completions.
    """

    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class GroupsScored:
    kept: int
    dropped: int
    mean_reward: float
    mean_reward_plain: float
    scorer_failures: int


@dataclass(frozen=True, slots=True)
class TrainingStepped:
    step: int
    steps: int
    loss: float
    kl: float
    """Mean per-token KL estimate to the starting policy, nats."""


@dataclass(frozen=True, slots=True)
class UpstreamCalled:
    """One HTTP call to a model server ended."""

    operation: str
    outcome: str
    seconds: float


Signal = (
    PromptsBuffered
    | RecordsRejected
    | OffsetGapFound
    | IntakeStateChanged
    | IntakeLagMeasured
    | PhaseProgressed
    | CompletionsSampled
    | SamplesLost
    | GroupsScored
    | TrainingStepped
    | UpstreamCalled
)

Emit = Callable[[Signal], None]
"""How a room tells. Must not block, must not raise; safe to call from any thread."""


def discard(signal: Signal) -> None:
    """An `Emit` for those who do not listen."""
