"""What rooms need of each other. Backends implement these; only the composition root names backends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tao_daemon.domain.adapter import AdapterRecord, Lineage
from tao_daemon.domain.completion import Answer, CompletionGroup, ScoredGroup
from tao_daemon.domain.prompt import Prompt, Split
from tao_daemon.domain.signals import TrainingSignal

TopicPartition = tuple[str, int]
Accepts = Callable[[Prompt], bool]


@dataclass(frozen=True, slots=True)
class Ingest:
    """Prompts and the offsets behind them: one transaction."""

    prompts: tuple[Prompt, ...]
    next_offsets: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Ingested:
    train: int
    held_out: int
    excluded: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class BufferStats:
    """Counts of prompts. `available` ones are fresh: in no round, below the cap on attempts, not burned."""

    train: int
    train_available: int
    held_out: int
    held_out_available: int
    excluded: int
    clusters: int


@dataclass(frozen=True, slots=True)
class BufferDetails:
    """What an operator asks beyond the counts."""

    tenants: tuple[tuple[str, int], ...]
    """The twenty tenants with the most prompts, with their numbers of prompts; "" is who names no tenant."""
    tenant_count: int
    oldest: float | None
    """Arrival of the oldest prompt, Unix seconds; None for an empty buffer."""
    newest: float | None
    claimed: int
    """Prompts that the running round trains on."""
    exhausted: int
    """Training prompts that took part in so many rounds that none claims them again."""
    file_bytes: int
    """On the disk, the write-ahead log included; 0 where there is no file."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a round wants. `accepts` says whether any scorer matches; the rest never trains."""

    round: int
    limit: int
    tenant_share: float
    """Largest fraction of `limit` that one tenant may have when there are several, in (0, 1]."""
    accepts: Accepts
    least: int = 0
    """With fewer prompts than this nothing is claimed."""


class PromptStore(Protocol):
    """The buffer. Every method is safe from any thread; work runs in order on the store's own thread."""

    def submit(self, batch: Ingest) -> Future[Ingested]:
        """Buffer a batch and its offsets in one transaction. Records already there are skipped."""
        ...

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        """The next offset to read per partition; partitions never read are absent."""
        ...

    async def stats(self) -> BufferStats: ...

    async def details(self) -> BufferDetails: ...

    async def read(self, ids: Sequence[str]) -> Mapping[str, Prompt]:
        """Prompts by identifier; those that are not there, or no more, are absent."""
        ...

    async def claimable(self, split: Split, claim: Claim) -> int:
        """How many prompts of the split such a claim would get now; nothing is claimed. It may read many prompts."""
        ...

    async def claim_training(self, claim: Claim) -> Sequence[Prompt]:
        """Training prompts for a round, one per cluster: of the newest, the least tried first. The same round gets the
        same again. Fewer than `claim.least` are returned, but not claimed."""
        ...

    async def claim_rehearsal(self, claim: Claim) -> Sequence[Prompt]:
        """Prompts that earlier rounds used up, another draw for each round; they stay as they are. The same round gets
        the same again."""
        ...

    async def claim_held_out(self, claim: Claim) -> Sequence[Prompt]:
        """Held-out prompts for one gate, burned by this call. The same round gets the same again. Fewer than
        `claim.least` are returned, but neither claimed nor burned."""
        ...

    async def claim_shadow(self, limit: int, tenant_share: float, accepts: Accepts) -> Sequence[Prompt]:
        """The newest live prompts for a shadow, in the order they arrived: training prompts of clusters of which
        none was ever trained on or shadowed. They never train, and are never given again."""
        ...

    async def return_shadowed(self, ids: Sequence[str]) -> None:
        """Of these the shadowed ones are as if no shadow had ever claimed them. Idempotent."""
        ...

    async def release(self, round_id: int, *, consumed: bool, tried: bool = True, carried: Sequence[str] = ()) -> None:
        """End a round's claim: its training prompts are used up, and `carried` ones of earlier rounds with them; or
        its own return to the pool, as `tried` once more or as if they had never been claimed. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """An earlier completion worth showing."""

    prompt_id: str
    request: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)
    reward: float


Examples = Callable[[Prompt], Sequence[Example]]
"""Earlier completions of the prompt's tenant, of other prompts, the best first."""

Preview = Callable[[Prompt, Sequence[str]], Awaitable[Sequence[float | None] | None]]
"""Rewards of plain completions while sampling goes on; None where scoring is not to be had at once and at no cost."""


@dataclass(frozen=True, slots=True)
class SamplingAids:
    """What sampling may look at beside the prompts."""

    examples: Examples = lambda prompt: ()
    preview: Preview | None = None
    """Without it every prompt gets the same number of completions."""


class Sampler(Protocol):
    """Asks the model server for answers."""

    def sample(
        self, prompts: Sequence[Prompt], *, model: str | None, seed: int, aids: SamplingAids
    ) -> AsyncGenerator[CompletionGroup, None]:
        """Groups of completions in the order they finish. `model` is an adapter, None the base model."""
        ...

    async def draw(self, prompts: Sequence[Prompt], *, model: str | None, seed: int) -> Sequence[CompletionGroup]:
        """One plain completion per prompt, from the model's own distribution; prompts without one are left out."""
        ...

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        """One answer per prompt as a client would get it, in order, for evaluation; the finish reason `REFUSED` or
        `UNANSWERED` marks those that are none."""
        ...


class Scorer(Protocol):
    """Turns completions into rewards, without labels."""

    def accepts(self, prompt: Prompt) -> bool:
        """Whether any configured scorer, or the request itself, says what a good answer is."""
        ...

    def judges(self, prompt: Prompt) -> bool:
        """Whether any of them says which of two answers is better, as a gate asks: agreement alone does not. What is
        not judged has no `absolute`. Implies `accepts`."""
        ...

    async def score(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """One reward in [0, 1] per text; None where scoring failed, never a silent 0. Raises UpstreamError while a
        server that scores is down: what is asked then is to be asked again."""
        ...

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """One score in [0, 1] per text, comparable between prompts; None where scoring failed. Raises as `score`."""
        ...

    async def preview(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None] | None:
        """As `score`; None when a scorer that applies compares completions, costs money, or takes a model's time."""
        ...

    def names(self, prompt: Prompt) -> tuple[str, ...]:
        """The scorers that apply to the prompt. May take seconds, as `accepts` and `judges`; safe from any thread."""
        ...

    async def close(self) -> None:
        """End what it holds. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One attempt at training: a fresh directory, the groups, and where to start."""

    round: int
    attempt: int
    groups: tuple[ScoredGroup, ...]
    start: AdapterRecord | None
    """The adapter that sampled; None starts from the base model."""
    seed: int


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished training: `directory` holds safetensors, `adapter_config.json` and `fingerprint.json`."""

    directory: str
    base_digest: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DivergenceJob:
    """How far a candidate went, to be measured on its own answers."""

    round: int
    attempt: int
    groups: tuple[CompletionGroup, ...]
    """The candidate's own plain completions, sampled at temperature 1; one per group."""
    candidate: AdapterRecord
    start: AdapterRecord | None
    """The adapter that training started from; None for the base model."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL divergence of a candidate, over its whole vocabulary at every token, summed per answer: means over answers."""

    from_start: float
    """Nats per answer, from the policy that training started from."""
    from_base: float
    """Nats per answer, from the base model without an adapter."""
    entropy: float
    """Of the candidate, nats per token."""
    answers: int
    tokens: int


class Trainer(Protocol):
    async def train(self, job: TrainingJob, progress: Callable[[TrainingSignal], None]) -> TrainingResult:
        """Train to the end or raise TrainingError. Cancelling ends everything it started."""
        ...

    async def measure(self, job: DivergenceJob) -> Divergence:
        """Raises TrainingError. Cancelling ends everything it started."""
        ...


class AdapterStore(Protocol):
    """Immutable adapters, named by digest."""

    @property
    def root(self) -> Path:
        """The directory in which an adapter's own has the adapter's name."""
        ...

    def publish(self, directory: str, lineage: Lineage, created_at: float) -> AdapterRecord:
        """Check an artefact and move it into the store atomically. Raises AdapterError."""
        ...

    def get(self, name: str) -> AdapterRecord:
        """The adapter with every digest verified. Raises AdapterError."""
        ...

    def names(self) -> Sequence[str]:
        """Every adapter, oldest round first."""
        ...

    def delete(self, name: str) -> None:
        """Remove an adapter for good. Idempotent; unknown names are fine."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One look at one model server."""

    url: str
    version: str
    """"" when it does not say."""
    process: float | None
    """When its process started; another value is another process, that has forgotten every adapter. None: unknown."""
    loaded: Mapping[str, str]
    """The adapters it lists: name to the path it loaded from, as it sees it."""
    problems: tuple[str, ...]
    """What keeps it, or may keep it, from serving adapters, with the remedies."""


class Fleet(Protocol):
    """The model servers, all replicas or none; and each by itself, for whoever keeps it as it should be.

    Changes to one replica never interleave.
    """

    @property
    def urls(self) -> Sequence[str]: ...

    async def serve(self, adapter: AdapterRecord) -> str:
        """Load under its own name everywhere and verify by log-probabilities; says what was measured.

        Idempotent. Raises AdapterError when a server does not truly serve it (ServerUnfit: serves none),
        UpstreamError when one cannot be asked; in all cases no replica keeps it but those that served it before
        and still do.
        """
        ...

    async def check(self) -> None:
        """Raises ServerUnfit, with the remedies, for a replica that can serve no adapter; UpstreamError."""
        ...

    async def retire(self, name: str) -> None:
        """Unload everywhere. Idempotent; unknown names are fine."""
        ...

    async def observe(self, url: str) -> ReplicaView:
        """What a replica is and has loaded. Raises UpstreamError."""
        ...

    async def heal(self, url: str, adapters: Sequence[AdapterRecord]) -> str:
        """Load what is missing on a replica and verify all of it; says what was measured.

        What is listed but not truly served is loaded anew once. Raises as `serve`.
        """
        ...

    async def verify(self, url: str, adapter: AdapterRecord) -> str:
        """Measure a loaded adapter on a replica. Raises AdapterError when it is not truly served, UpstreamError."""
        ...

    async def unload(self, url: str, name: str, wanted: Callable[[], bool]) -> None:
        """Unload from a replica, unless `wanted()` by the time nothing else changes it. Raises UpstreamError."""
        ...

    async def flip_in_place(self, alias: str, adapter: AdapterRecord | None) -> str:
        """Make a name on the servers stand for the adapter, or for nothing; replica after replica.

        Raises ServerUnfit where a server cannot do that safely, AdapterError, UpstreamError.
        """
        ...

    async def touch(self, url: str, name: str) -> None:
        """Use an adapter, so that the replica evicts others before it. Raises UpstreamError."""
        ...

    def seen_as(self, path: Path) -> str:
        """A local path as the servers see it."""
        ...


Clock = Callable[[], float]
"""Unix seconds. Passed in, so that tests own time."""
