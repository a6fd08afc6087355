"""What the control API takes and answers, as types: the source of its OpenAPI document.

Times are Unix seconds, fractions lie in [0, 1]. What a round's report holds depends on how far the round came, so
reports are plain objects; `docs/architecture.md` says what is in them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tao_daemon.control.scopes import NAME_PATTERN, Scope
from tao_daemon.domain.events import NO_REASON
from tao_daemon.domain.rollout import Hold
from tao_daemon.domain.traffic import DURATION_EDGES, ArmCounts, GatewayReport, SplitCounts

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Reason = Annotated[str, StringConstraints(max_length=2000)]
Document = dict[str, Any]
Count = Annotated[int, Field(ge=0, le=2**53, strict=True)]
_MOST_ENTRIES = 1000
"""Of a gateway's report: several times what a gateway keeps, and read while nothing else runs."""


class Model(BaseModel):
    """Base of what is answered: descriptions come from the docstring under each field."""

    model_config = ConfigDict(use_attribute_docstrings=True, ser_json_inf_nan="null")


class Asked(Model):
    """A request that changes something."""

    model_config = ConfigDict(extra="forbid")

    actor: Name | None = None
    """Who asks, for the journal. With a named token it is written beside the token's name."""
    reason: Reason = NO_REASON
    """Why, for the journal."""


class AskedMove(Asked):
    expected_generation: Count | None = None
    """The generation of the routes that you saw; with another one nothing is done."""


class AskedPromotion(AskedMove):
    full: Annotated[bool, Field(strict=True)] = False
    """Skip the rest of the whole rollout, not of the present phase or step alone."""


class AskedUndo(AskedMove):
    to: Name | None = None
    """An adapter that settled before, or "base"; left out: one step back."""


class AskedToken(Asked):
    name: Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
    """Whose it is: the journal's actor of what is done with it."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)]
    days: Annotated[float, Field(gt=0, le=3650, strict=True)] | None = None
    """How long it is valid; null for as long as nobody revokes it."""


class Arm(Model):
    """One arm of a split, cumulative over the gateway's life."""

    requests: Count = 0
    conversations: Count = 0
    errors: Count = 0
    slow: Count = 0
    truncated: Count = 0


class Split(Model):
    incumbent: Arm = Arm()
    candidate: Arm = Arm()


class Report(Model):
    """A gateway's cumulative counters. Keys that this version does not know are ignored."""

    generation: Count
    """Of the routes that it uses for new requests."""
    in_flight: Annotated[dict[str, Count], Field(max_length=_MOST_ENTRIES)] = {}
    splits: Annotated[dict[Annotated[int, Field(ge=0, le=2**53)], Split], Field(max_length=_MOST_ENTRIES)] = {}
    """By the generation that a request was bound under."""
    durations: Annotated[list[Count], Field(max_length=len(DURATION_EDGES) + 1)] = []
    captured: Count = 0
    capture_dropped: Count = 0
    requests: Annotated[dict[str, Count], Field(max_length=_MOST_ENTRIES)] = {}
    """Requests that ended, by the kind of version."""
    failed: Annotated[dict[str, Count], Field(max_length=_MOST_ENTRIES)] = {}

    def of(self, gateway: str) -> GatewayReport:
        """As the traffic board takes it."""
        splits = {
            generation: SplitCounts(
                ArmCounts(**split.incumbent.model_dump()), ArmCounts(**split.candidate.model_dump())
            )
            for generation, split in self.splits.items()
        }
        return GatewayReport(
            gateway,
            self.generation,
            self.in_flight,
            splits,
            tuple(self.durations),
            self.captured,
            self.capture_dropped,
            self.requests,
            self.failed,
        )


class Problem(Model):
    code: str
    """A short word for programs."""
    message: str
    remedy: str
    """What to do about it; may be empty."""


class Error(Model):
    """The one shape of every error."""

    error: Problem


class Done(Model):
    """What a request that changes something led to. Status 409 when it was refused."""

    note: str
    """What was done, or why not, as the journal has it."""
    refused: bool
    seq: int | None
    """The journal's entry; null when nothing was journaled."""
    replayed: bool
    """The same request was answered before, with just this; nothing was done now."""


class Live(Model):
    live: bool


class Ready(Model):
    ready: bool
    reason: str | None


class Whoami(Model):
    name: str
    scopes: list[Scope]
    """With all they include."""


class Incumbent(Model):
    adapter: str | None
    """What answers under the public name; null for the base model."""
    previous: str | None
    """What an undo goes back to, still loaded; null for the base model."""
    generation: int
    """Of the routes."""
    since: float | None


class RunningRound(Model):
    id: int
    phase: str
    attempt: int
    reason: str
    started_at: float
    incumbent: str | None
    candidate: str | None
    progress: float
    done: int | None
    total: int | None
    seconds_left: float | None
    held: str = ""
    """Why it does not sample now although it would; empty otherwise."""


class NextRound(Model):
    due: str | None
    """Why a round starts as soon as it can."""
    trigger: str
    """Why none has started yet."""


class FinishedRound(Model):
    model_config = ConfigDict(extra="allow")

    id: int
    outcome: str
    reason: str


class Rollout(Model):
    phase: str
    adapter: str
    round: int
    reason: str
    since: float
    """When the phase, or the canary step, began."""
    started_at: float
    step: int
    traffic_fraction: float
    approved_by: str | None
    paused_by: str | None
    hold: str
    """Why it does not move now, in words."""
    hold_reason: Hold | None
    """The same for programs; null when it has ended, or moves at the next look at the traffic."""
    waits_for_approval: bool
    shadow: str
    """What the shadow does now."""
    evidence: dict[str, float]
    steps: list[Document]
    """What gateways counted, per canary step: fraction, generation, and counts per arm."""
    plan: Document
    """What lies before it: the canary's fractions, and what the shadow, each step and baking ask for."""


class Replica(Model):
    url: str
    reachable: bool
    """It answered at the last look; false before the first one."""
    ready: bool
    """It may be asked for adapters."""
    problems: list[str]
    """Why not, or what else is wrong with it."""


class Fleet(Model):
    gateways: int
    behind: list[str]
    """Gateways that have not adopted the present generation of the routes, by name."""
    replicas: list[Replica]
    """The model servers, in the order of the configuration."""
    unready: list[str]
    """Replicas that get no adapter's requests."""


class Need(Model):
    """Something that waits for a person."""

    code: str
    """approval, paused, no_gateway, replica_unreachable, replica_unready, buffer_silent, intake_interrupted or
    round_failed."""
    text: str
    command: str | None
    """What settles it; null where no command can."""
    severity: Literal["decision", "problem"]
    """A decision waits for somebody's word; a problem is something broken."""


class BufferCounts(Model):
    """Counts of prompts. Available ones are fresh: in no round, below the cap on attempts, not burned."""

    model_config = ConfigDict(extra="allow")

    train: int
    train_available: int
    held_out: int
    held_out_available: int
    excluded: int
    clusters: int


class Clients(Model):
    """What clients met with one kind of version within the last five minutes or so."""

    kind: str
    """adapter: what serves; candidate: an open canary's; previous, base; none: refused before any was chosen."""
    requests: int
    failed: int
    """5xx, or cut off in the middle."""


class Status(Model):
    version: str
    mode: str
    needs: list[Need]
    """What needs a person now, the most urgent first."""
    incumbent: Incumbent
    round: RunningRound | None
    next_round: NextRound
    last_round: FinishedRound | None
    rollout: Rollout | None
    returning_to: str | None
    """An adapter that an undo is loading and verifying."""
    fleet: Fleet
    clients: list[Clients]
    """By the gateways' reports, since this daemon knows them; empty while none came or nobody asks."""
    buffer: BufferCounts | None
    """null while the store does not answer."""
    intake: str
    intake_lag_records: int | None
    """Records that wait in Kafka; null before it was measured."""


class Rounds(Model):
    rounds: list[Document]
    """Reports, oldest first."""


class RoundTrend(Model):
    trend: list[Document]
    """One point per finished round, oldest first: outcome, held-out difference with its 95 % interval."""


class PastRollouts(Model):
    rollouts: list[Document]
    """The latest first, each with its steps."""


class Gateways(Model):
    gateways: list[Document]


class Replicas(Model):
    replicas: list[Document]


class Adapters(Model):
    adapters: list[Document]
    """Oldest first, with their lineage."""


class Buffer(Model):
    stats: BufferCounts | None
    intake: str
    details: Document | None
    """Tenants with most prompts, the oldest and newest arrival, the size of the file."""


class Head(Model):
    seq: int
    hash: str


class Audit(Model):
    entries: list[Document]
    head: Head


class Verification(Model):
    entries: int
    """Whole entries, from the first on."""
    head: Head
    """The last of them: it vouches for all."""
    problem: str | None
    """The first entry that was changed or is missing, in words."""


class Token(Model):
    id: str
    name: str
    scopes: list[Scope]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class Tokens(Model):
    tokens: list[Token]


class NewToken(Model):
    id: str
    token: str
    """The secret. It is shown this once."""
