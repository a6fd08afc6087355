"""What happened: the messages that move the machine. Frozen, past tense, journaled before they act.

A result names the round and the attempt it belongs to; the machine ignores results of older attempts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tao_daemon.domain.report import Decision
from tao_daemon.domain.round import Phase

DAEMON = "daemon"
"""The actor of what nobody asked for."""


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    """The process came up; whatever was under way is unknown and starts again."""

    version: str


@dataclass(frozen=True, slots=True)
class RoundRequested:
    """The trigger, the calendar or a person wants a round."""

    reason: str
    actor: str = DAEMON


@dataclass(frozen=True, slots=True)
class PhaseCompleted:
    """A phase before the verdict ended with its artefact on disk."""

    round: int
    attempt: int
    phase: Phase
    candidate: str | None = None
    """The trained adapter, for the training phase."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CandidateJudged:
    """The evaluating phase ended: the gate's verdict."""

    round: int
    attempt: int
    decision: Decision
    reason: str


@dataclass(frozen=True, slots=True)
class PhaseFailed:
    """A phase could not end. The round fails; the daemon does not."""

    round: int
    attempt: int
    phase: Phase
    reason: str


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """Prompts were given back or used up, and the report is written: the round left nothing behind."""

    round: int


@dataclass(frozen=True, slots=True)
class RoundCancelRequested:
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolloutApproved:
    """A person lets the staged adapter serve."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolloutAborted:
    """A person ends the open rollout before its adapter serves."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class AdapterVerified:
    """Every server has loaded the adapter and proved, by its log-probabilities, that it serves it."""

    adapter: str
    attempt: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SwapFailed:
    """The adapter could not be loaded or verified; nothing was flipped."""

    adapter: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class UndoRequested:
    """A person wants the previous adapter (or the base model) back, now."""

    actor: str
    reason: str


Event = (
    DaemonStarted
    | RoundRequested
    | PhaseCompleted
    | CandidateJudged
    | PhaseFailed
    | RoundClosed
    | RoundCancelRequested
    | RolloutApproved
    | RolloutAborted
    | AdapterVerified
    | SwapFailed
    | UndoRequested
)
