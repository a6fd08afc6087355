"""What happened: the messages that move the machine. Frozen, past tense, journaled before they act.

A result names the round and the attempt it belongs to; the machine ignores results of older attempts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutPhase, ShadowPair
from tao_daemon.domain.round import Phase
from tao_daemon.domain.traffic import SplitCounts

DAEMON = "daemon"
"""The actor of what nobody asked for."""
NO_REASON = "no reason given"
"""What the journal says where a person gave none."""


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    """The process came up; whatever was under way is unknown and starts again."""

    version: str
    config_digest: str = ""
    """Of the settings that decide from here on; "" in entries of versions that did not say."""


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
    """A phase could not end. The round fails; the daemon does not. `blameless`: no prompt's fault, as for want
    of a server."""

    round: int
    attempt: int
    phase: Phase
    reason: str
    blameless: bool = False


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
    """A person lets the open rollout go past the shadow."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolloutPromoted:
    """A person skips what is left of the present phase or canary step; `full`: of the whole rollout."""

    actor: str
    reason: str
    full: bool = False
    slow_seconds: float | None = None
    """What counts as slow in a canary that begins so, as in `TrafficMeasured`; older entries do not say."""


@dataclass(frozen=True, slots=True)
class RolloutAborted:
    """A person ends the open rollout; the incumbent serves everything."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolloutPaused:
    """A person holds the open rollout where it is; regressions still abort it."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolloutResumed:
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class AdapterVerified:
    """Every server has loaded the adapter and proved, by its log-probabilities, that it serves it."""

    adapter: str
    attempt: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VerificationFailed:
    """The adapter could not be loaded or verified; nothing was flipped."""

    adapter: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class ShadowScored:
    """Both versions answered some live prompts."""

    adapter: str
    phase: RolloutPhase
    """In which they were asked: pairs of an earlier phase do not count in a later one."""
    pairs: tuple[ShadowPair, ...]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class TrafficMeasured:
    """A look at what the gateways counted."""

    adapter: str
    counts: tuple[SplitCounts, ...] | None
    """One per step of the rollout's evidence, in order; None when no gateway reports: nothing is known."""
    slow_seconds: float | None = None
    """95th percentile of the answers of the minutes before, pooled; the next step's meaning of slow."""


@dataclass(frozen=True, slots=True)
class UndoRequested:
    """A person wants the previous adapter (or the base model, or `to`) back, now."""

    actor: str
    reason: str
    to: str | None = None
    """An adapter's name, or `rollout.BASE`; None goes one step back."""


@dataclass(frozen=True, slots=True)
class ReplicaDrifted:
    """A replica lacks, or does not truly serve, an adapter that it should: it gets no adapter's requests."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaHealed:
    """A replica serves every adapter it should, verified."""

    url: str
    detail: str


@dataclass(frozen=True, slots=True)
class AdapterUnservable:
    """A replica that lacks the adapter cannot be given it: its files are damaged, or the server refuses it."""

    adapter: str
    reason: str


@dataclass(frozen=True, slots=True)
class AdapterDeleted:
    """An adapter's files are gone, by retention; no server had it loaded."""

    adapter: str
    reason: str


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """Somebody got a token for the control API. Its secret is nowhere in here."""

    token: str
    """The token's id."""
    name: str
    scopes: tuple[str, ...]
    expires_at: float | None
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    token: str
    name: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class PromptsForgotten:
    """Prompts were erased from the buffer, from rounds and from adapters' fingerprints, while the daemon was down."""

    erasure: str
    """Identifies it, so that one that was interrupted is noted once."""
    count: int
    selected_by: str
    """What they were chosen by: subject, tenant, conversation or id. Never the value."""
    rounds: tuple[int, ...]
    """Rounds that had claimed some of them."""
    adapters: tuple[str, ...]
    """Adapters that were trained on some of them, or on top of such an adapter."""
    fingerprints: tuple[tuple[str, str], ...]
    """Adapters whose fingerprint lost probes, each with the SHA-256 of what is left of it."""
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class BackupRestored:
    """The data directory was put back to what a backup holds; what the journal knew after that is gone."""

    taken_at: float
    """Unix second of the backup."""
    generation: int
    """Above any that gateways may have seen: they follow the restored routes."""
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
    | RolloutPromoted
    | RolloutAborted
    | RolloutPaused
    | RolloutResumed
    | AdapterVerified
    | VerificationFailed
    | ShadowScored
    | TrafficMeasured
    | UndoRequested
    | ReplicaDrifted
    | ReplicaHealed
    | AdapterUnservable
    | AdapterDeleted
    | TokenIssued
    | TokenRevoked
    | PromptsForgotten
    | BackupRestored
)
