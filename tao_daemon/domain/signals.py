"""What is worth knowing while it happens: observations for metrics, logs and the console.

Signals never move the machine, are not journaled, and carry no text of prompts or completions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tao_daemon.domain.report import Decision
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
class IntakeInterrupted:
    """A session with Kafka ended and another one begins.

    `broker_unreachable`; `buffer_failed`: the buffer does not say where to go on; `replaced`: partitions changed or
    stood still.
    """

    cause: str


@dataclass(frozen=True, slots=True)
class DeadLettersFailed:
    """The dead-letter topic did not take them; their records are read again."""

    count: int


@dataclass(frozen=True, slots=True)
class BufferWritten:
    """A batch and its offsets were committed, or only offsets."""

    seconds: float


@dataclass(frozen=True, slots=True)
class BufferFailed:
    """The buffer did not do what was asked: `disk_floor` (too little free space) or `database`."""

    cause: str


@dataclass(frozen=True, slots=True)
class BufferMeasured:
    """The room that the buffer takes, and has."""

    file_bytes: int
    """Of the database and its write-ahead log."""
    free_bytes: int
    """On its file system."""
    floor_bytes: int
    """Below so many free bytes nothing is ingested; 0 for no floor."""


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
    """Sampled for it, reasoning of which only the answer is kept included."""
    seconds: float = 0.0
    """From the first request for it to the last answer, turns waited for included."""
    spared: int = 0
    """Plain completions below `sampling.completions` that were not asked for, as the rewards did not differ."""
    added: int = 0
    """Plain completions above `sampling.completions` that were asked for, as the rewards differed."""


@dataclass(frozen=True, slots=True)
class SamplesLost:
    """Sampling went on without something it asked for.

    `refused` and `unavailable` count requests (one prompt under one strategy): the server would not take it
    (HTTP 400, 413, 422), or could not be reached after retries. `malformed`, `no_answer` (the reasoning was cut off, or
    holds no answer that the model could give by itself) and `no_tokens` (the chat template does not give an extracted
    answer's tokens) count completions.
    """

    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class SamplingPaced:
    """How much may be asked of the servers that live requests share."""

    limit: int
    """Requests that may be in flight; 0 holds sampling."""
    in_flight: int
    waiting: int
    """Requests that wait for their turn."""
    slowdown: float | None
    """99th percentile of the live answers of the last seconds over the usual one; None while one is not known."""
    held: str = ""
    """Why requests wait and none may begin; "" otherwise."""


@dataclass(frozen=True, slots=True)
class GroupsScored:
    kept: int
    dropped: int
    """Those that a scorer failed on included."""
    mean_reward: float
    mean_reward_plain: float
    scorer_failures: int


@dataclass(frozen=True, slots=True)
class ScorerFailed:
    """Completions that a scorer gave no score: their groups are left out."""

    scorer: str
    kind: str
    """`timeout`, `error`, `out_of_range`, `stuck`, `unreadable`, `unavailable`, `untrusted`; `unmatched`, of the
    scorer "none": no scorer matches the prompt."""
    count: int


@dataclass(frozen=True, slots=True)
class ScorerKnown:
    """A scorer is configured. Said at the start, so that what never happens to it is a 0 and not a gap."""

    scorer: str
    kind: str
    """The `type` of its entry."""


@dataclass(frozen=True, slots=True)
class ScorerAsked:
    """One request to a model that scores."""

    scorer: str
    outcome: str
    """`ok`, `unreadable` (it is asked again), `failed`."""
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """By the configured prices."""


@dataclass(frozen=True, slots=True)
class DecoysJudged:
    """Planted answers that a judge compared with real ones."""

    scorer: str
    planted: int
    fooled: int
    """Of them, how many it put above the median of the real ones."""


@dataclass(frozen=True, slots=True)
class SamplesMeasured:
    """What a round's plain completions are like: meter by name, see `domain.meters`."""

    meters: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DivergenceMeasured:
    """How far a candidate went, nats per answer."""

    from_start: float
    from_base: float
    entropy: float


@dataclass(frozen=True, slots=True)
class MismatchMeasured:
    """How far server and trainer are apart on what the server sampled; said before training refuses for it."""

    nats: float
    """Mean absolute difference of their log-probabilities per token; NaN when the trainer's are not finite."""


@dataclass(frozen=True, slots=True)
class TrainingStepped:
    step: int
    steps: int
    loss: float
    kl: float
    """Mean per-token KL estimate to the starting policy, nats."""


TrainingSignal = MismatchMeasured | TrainingStepped
"""What a running training tells."""


@dataclass(frozen=True, slots=True)
class TrainingEnded:
    """One attempt at training is over: `trained`, `failed` or `cancelled`."""

    outcome: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the trainer measured; another trainer may measure other things. Empty unless `trained`."""


@dataclass(frozen=True, slots=True)
class CandidateEvaluated:
    """The gate gave its verdict."""

    decision: Decision
    numbers: Mapping[str, float]
    """Those of the verdict; with too few prompts nearly none."""


@dataclass(frozen=True, slots=True)
class NotificationSent:
    """One try at one notification ended: `delivered`, `failed` (it is tried again) or `refused` (it is not)."""

    sink: str
    """The name of a configured sink."""
    outcome: str


@dataclass(frozen=True, slots=True)
class NotificationLag:
    """Journal entries that a sink has not been told of yet. Said at the start too, so that every sink is known."""

    sink: str
    entries: int


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
    | IntakeInterrupted
    | DeadLettersFailed
    | BufferWritten
    | BufferFailed
    | BufferMeasured
    | PhaseProgressed
    | CompletionsSampled
    | SamplesLost
    | SamplingPaced
    | GroupsScored
    | ScorerFailed
    | ScorerKnown
    | ScorerAsked
    | DecoysJudged
    | SamplesMeasured
    | DivergenceMeasured
    | MismatchMeasured
    | TrainingStepped
    | TrainingEnded
    | CandidateEvaluated
    | UpstreamCalled
    | NotificationSent
    | NotificationLag
)

Emit = Callable[[Signal], None]
"""How a room tells. Must not block, must not raise; safe to call from any thread."""


def discard(signal: Signal) -> None:
    """An `Emit` for those who do not listen."""
