"""The typed configuration. Imports nothing heavy; knows every key, its unit and its default.

config.toml → parse → resolve secrets → Config. Unknown keys are errors that name the nearest right one.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.rollout import NewerCandidate, RolloutMode


def _resolve_secret(value: Any) -> Any:
    """`env:NAME` reads an environment variable, `file:PATH` a file; a plain value is refused."""
    if value is None or isinstance(value, SecretStr):
        return value
    scheme, _, rest = str(value).partition(":")
    if scheme == "env" and rest:
        if rest not in os.environ:
            raise ValueError(f"environment variable {rest} is not set; export it before the start")
        return os.environ[rest]
    if scheme == "file" and rest:
        try:
            return Path(rest).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"cannot read the secret file {rest}: {error.strerror}") from None
    raise ValueError("a secret is never written into the file: use env:NAME or file:PATH")


Secret = Annotated[SecretStr | None, BeforeValidator(_resolve_secret)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
Positive = Annotated[int, Field(ge=1)]
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]


class Section(BaseModel):
    """Base of every section: immutable, no unknown keys, descriptions from the docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Daemon(Section):
    data_dir: Path = Path("./data")
    """Everything the daemon keeps: tao.duckdb, control.db, rounds/, adapters/, routes.json."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. Logs are JSON lines on stderr and never hold prompt text."""
    shutdown_seconds: Seconds = 20.0
    """How long a clean stop may take after SIGTERM before what is left is killed."""


class Kafka(Section):
    enabled: bool = True
    """False for a buffer that is only filled by `tao-daemon buffer import`."""
    bootstrap_servers: Annotated[tuple[str, ...], Field(min_length=1)] = ("127.0.0.1:9092",)
    """host:port of the brokers."""
    topic: str = "prompts"
    """Topic with the prompt records."""
    dead_letter_topic: str = "prompts.dead-letter"
    """Topic for records that cannot become prompts, with headers that say why and from where."""
    consumer_group: str = "tao-daemon"
    """Offsets are committed under this name for lag tools only; the buffer's own offsets are authoritative."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where to begin in a partition that this buffer has never read."""
    max_batch_records: Positive = 2000
    """Records per transaction, at most."""
    max_wait_seconds: Seconds = 0.5
    """How long a small batch waits for more records."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Transport security towards the brokers."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """SASL mechanism, with SASL_PLAINTEXT or SASL_SSL."""
    sasl_username: str | None = None
    """SASL user."""
    sasl_password: Secret = None
    """SASL password: env:NAME or file:PATH."""
    ssl_cafile: Path | None = None
    """CA certificates in PEM, with SSL or SASL_SSL."""


class Buffer(Section):
    max_prompt_bytes: Positive = 65_536
    """A record larger than this goes to the dead-letter topic."""
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of near-duplicate clusters kept from training for the gate."""
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """Estimated Jaccard similarity of character shingles from which two prompts are one cluster."""
    min_free_disk_mib: Annotated[int, Field(ge=0)] = 512
    """Intake pauses below this much free space in data_dir."""
    max_attempts: Positive = 3
    """How many rounds that were rejected or failed a training prompt may take part in."""


class Round(Section):
    prompts: Positive = 64
    """Training prompts per round."""
    min_new_prompts: Annotated[int, Field(ge=0)] = 500
    """Start a round when this many fresh training prompts wait; 0 turns this trigger off."""
    schedule: str = ""
    """Start a round by the calendar: a crontab line such as "0 3 * * *" in UTC, or "" for none."""
    min_interval_seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """Least time between the end of a round and the next automatic start."""
    retry_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """Least time between the end of a failed round and the next automatic start."""
    outage_seconds: Annotated[float, Field(ge=0.0)] = 3600.0
    """How long a round waits for a model server that does not answer before it fails."""
    tenant_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Largest fraction of `prompts` that one tenant may have when there are several."""
    max_attempts: Positive = 5
    """Restarts that a round survives before it is marked failed."""
    seed: int = 0
    """Base of every random choice; the round's number is mixed in."""


class Strategy(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """Name in reports and metrics."""
    instruction: str
    """Appended to the system message, or put before a bare prompt. Training still conditions on the plain prompt."""
    completions: Positive = 2
    """Completions per prompt that are asked this way."""
    match_system_sha256: str | None = None
    """Only for prompts with this digest of their system messages."""


class Sampling(Section):
    endpoint: str = ""
    """Base URL of a vLLM for sampling alone; "" samples on the serving replicas."""
    completions: Annotated[int, Field(ge=2)] = 8
    """Completions per plain prompt."""
    strategies: tuple[Strategy, ...] = ()
    """Exploration: the same prompt with an added instruction ([[sampling.strategies]])."""
    max_tokens: Positive = 512
    """Length limit of a completion, in tokens, unless the request sets a smaller one."""
    concurrent_prompts: Positive = 16
    """Prompts in flight at once."""
    max_waiting_requests: Annotated[int, Field(ge=0)] = 8
    """Sampling pauses while the server's own queue is longer (vllm:num_requests_waiting)."""
    live_slowdown: Annotated[float, Field(ge=1.0)] = 2.0
    """How many times its usual 99th percentile the gateways' latency may reach while sampling shares their servers."""
    timeout_seconds: Seconds = 300.0
    """Deadline of one request."""
    phase_timeout_seconds: Seconds = 14_400.0
    """Deadline of a whole sampling or answering pass."""


class Match(Section):
    tenant: str | None = None
    """Only prompts with this `tenant` header."""
    model: str | None = None
    """Only prompts whose request names this model."""
    system_sha256: str | None = None
    """Only prompts with this digest of their system messages."""


class ScorerConfig(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """Name in reports and metrics."""
    type: Literal["json_schema", "regex", "python"]
    """json_schema: graded by how far the answer meets the schema. regex: 1 on a full match. python: your own."""
    match: Match = Match()
    """Which prompts it applies to; all when empty."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Weight among the scorers of a prompt."""
    schema_file: Path | None = None
    """json_schema: a JSON Schema file."""
    pattern: str | None = None
    """regex: the answer must match it as a whole, surrounding white space aside."""
    callable: str | None = None
    """python: "package.module:function"; called with (request: dict, answer: str), returns a number in [0, 1]."""
    timeout_seconds: Seconds = 5.0
    """Deadline for one answer; over it, the answer's group is dropped and counted."""

    @model_validator(mode="after")
    def _complete(self) -> ScorerConfig:
        needed = {"json_schema": "schema_file", "regex": "pattern", "python": "callable"}[self.type]
        if getattr(self, needed) is None:
            raise ValueError(f"a scorer of type {self.type} needs {needed}")
        return self


class Training(Section):
    command: tuple[str, ...] = ()
    """Command that runs the trainer in another environment; empty runs this Python. The spec directory is appended."""
    base_model: Path = Path("./model")
    """Folder of the base model (config, tokenizer, safetensors), the same weights that vLLM serves."""
    algorithm: Literal["clipped_policy_gradient"] = "clipped_policy_gradient"
    """How rewards become a gradient."""
    rank: Literal[8, 16, 32, 64, 128, 256] = 16
    """LoRA rank; at most the server's --max-lora-rank."""
    alpha: Positive = 32
    """LoRA scaling numerator (scaling = alpha / rank)."""
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 5e-4
    """AdamW step size."""
    epochs: Positive = 2
    """Passes over the round's groups."""
    groups_per_step: Positive = 8
    """Completion groups per optimizer step."""
    max_sequence_tokens: Positive = 4096
    """Prompt plus one completion; longer ones are dropped from training and counted."""
    micro_batch_tokens: Positive = 8192
    """Tokens per forward pass, at most (a single completion with its prompt may exceed it)."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Lower clip of the probability ratio: 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0)] = 0.28
    """Upper clip of the probability ratio: 1 + clip_high."""
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest gradient norm."""
    kl_budget: Annotated[float, Field(gt=0.0)] = 0.5
    """Training stops early when the mean per-token KL estimate to the start exceeds this (nats)."""
    max_mismatch: Annotated[float, Field(gt=0.0)] = 0.2
    """Refuse to train when server and trainer differ by more than this per token, mean absolute (nats)."""
    min_spread: Fraction = 0.05
    """A group whose rewards differ by less teaches nothing and is dropped."""
    min_groups: Positive = 4
    """A round with fewer groups that can teach fails before training."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the frozen base; auto takes bfloat16 where the hardware multiplies it natively."""
    timeout_seconds: Seconds = 14_400.0
    """Deadline of one training."""


class Gate(Section):
    prompts: Positive = 200
    """Held-out prompts per gate; fixed in advance."""
    min_prompts: Positive = 200
    """With fewer available the verdict is inconclusive, before any score is opened."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Two-sided confidence of the bootstrap intervals."""
    resamples: Annotated[int, Field(ge=1000)] = 10_000
    """Bootstrap resamples."""
    min_differing_pairs: Annotated[int, Field(ge=1)] = 10
    """Pairs whose scores must differ before a gain counts."""
    max_length_ratio: Annotated[float, Field(gt=0.0)] = 1.2
    """Largest mean answer length of the candidate relative to the incumbent."""
    max_truncation_increase: Fraction = 0.02
    """Largest increase of the share of truncated answers."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Temperature of evaluation answers; 0 is greedy."""


class PathMap(Section):
    local: Path
    """Directory prefix as the daemon sees it."""
    server: Path
    """The same directory as vLLM sees it."""


class Serving(Section):
    replicas: Annotated[tuple[str, ...], Field(min_length=1)] = ("http://127.0.0.1:8000",)
    """Base URLs of the vLLM servers, without /v1. An adapter serves on all of them or on none."""
    base_model: str = "base"
    """Name under which vLLM serves the base model (--served-model-name)."""
    api_key: Secret = None
    """vLLM's --api-key: env:NAME or file:PATH."""
    in_place_alias: str = ""
    """Without a gateway: the name under which vLLM itself serves the adapter; needs vLLM 0.33. "" for gateways."""
    path_maps: tuple[PathMap, ...] = ()
    """Where vLLM sees data_dir/adapters, if elsewhere ([[serving.path_maps]])."""
    max_rank: Positive = 16
    """The servers' --max-lora-rank; a larger adapter is refused before any call."""
    load_timeout_seconds: Seconds = 60.0
    """Deadline of loading one adapter on one replica."""
    request_timeout_seconds: Seconds = 60.0
    """Deadline of other administrative calls."""
    drain_seconds: Annotated[float, Field(ge=0.0)] = 120.0
    """How long an adapter that left the routes stays loaded at most while requests are in flight on it."""
    lease_seconds: Seconds = 10.0
    """A gateway that has not reported for so long is taken for gone: nothing waits for it."""
    reconcile_seconds: Seconds = 5.0
    """How often what every replica has loaded is compared with what it should have."""
    keep_adapters: Positive = 10
    """Newest adapters whose files are kept, besides those in use and those that served last."""
    max_fingerprint_error: Annotated[float, Field(gt=0.0)] = 0.15
    """Largest mean absolute log-probability difference between server and trainer, nats per token."""


class Freeze(Section):
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    )
    """Days on which the window begins."""
    start: ClockTime = "00:00"
    """HH:MM at which it begins, UTC."""
    end: ClockTime = "24:00"
    """HH:MM at which it ends, UTC; not after `start` means the next day."""


class Rollout(Section):
    mode: RolloutMode = RolloutMode.APPROVE
    """observe: shadow only, then tell. approve: a person lets it go past the shadow. auto: the evidence does."""
    newer_candidate: NewerCandidate = NewerCandidate.SUPERSEDE
    """supersede: rounds go on while a rollout waits for a person, and a newer candidate replaces it. wait: neither."""
    shadow_pairs: Positive = 64
    """Live prompts that both versions answered, scored, before the canary may begin."""
    shadow_pairs_max: Positive = 512
    """Shadow pairs per phase, at most: shadowing costs two answers each."""
    shadow_concurrency: Positive = 4
    """Shadow prompts in flight at once."""
    margin: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """How much worse a candidate's mean score may be and still be "not inferior"."""
    canary_fractions: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(max_length=20)] = (
        0.05,
        0.25,
        0.5,
    )
    """Share of conversations the candidate answers, step by step; empty goes from shadow to baking."""
    step_seconds: Annotated[float, Field(ge=0.0)] = 600.0
    """Least time of a canary step."""
    step_conversations: Annotated[int, Field(ge=0)] = 100
    """Conversations that the candidate must have answered in a step before the next one; 0 asks for no gateway."""
    bake_seconds: Annotated[float, Field(ge=0.0)] = 3600.0
    """How long the adapter answers everything, watched, before it is settled."""
    bake_conversations: Annotated[int, Field(ge=0)] = 200
    """Conversations it must have answered in that time; 0 asks for no gateway."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Probability, at most, that a candidate no worse is aborted from shadow to canary; the same again for baking."""
    relative_risk: Annotated[float, Field(ge=1.0)] = 1.25
    """How many times as often the candidate may fail, be slow or be cut off before that counts as worse."""
    max_error_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Share of the candidate's conversations that may meet an error, whatever the incumbent's."""
    evaluate_seconds: Seconds = 5.0
    """How often the evidence is looked at."""
    freeze: tuple[Freeze, ...] = ()
    """Windows in which nothing is advanced ([[rollout.freeze]]); aborting and undoing always work."""


class Gateway(Section):
    host: str = "127.0.0.1"
    """Address the gateway listens on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port the gateway listens on; 0 takes a free one."""
    processes: Positive = 1
    """Processes that share the port."""
    public_model: str = "assistant"
    """The model name that clients use."""
    daemon_url: str = "http://127.0.0.1:8090"
    """Control API that routes are long-polled from and reports go to."""
    daemon_token: Secret = None
    """Token for reports: env:NAME or file:PATH; default: data_dir/control.token, where it can be read."""
    routes_file: Path | None = None
    """Last known routes, read at start and while the daemon is down; default: data_dir/routes.json."""
    report_seconds: Seconds = 1.0
    """How often a gateway reports its counters to the daemon."""
    conversation_header: str = "X-Conversation-Id"
    """Request header that identifies a conversation; without it, a hash of its first messages does."""
    tenant_header: str = "X-Tenant-Id"
    """Request header with the tenant, for captured prompts."""
    subject_header: str = "X-Subject-Id"
    """Request header with the person a prompt is about, for captured prompts, so that it can be forgotten."""
    capture: bool = False
    """Send every prompt to kafka.topic, without ever delaying a request."""
    capture_fraction: Fraction = 1.0
    """Share of conversations that are captured."""
    capture_queue: Positive = 10_000
    """Prompts that may wait for Kafka; more are dropped and counted."""
    request_timeout_seconds: Seconds = 600.0
    """Deadline of a whole request; a stream must also move at least every 60 seconds."""
    max_body_bytes: Positive = 8_388_608
    """Largest request body."""


class Control(Section):
    host: str = "127.0.0.1"
    """Address of the control API; keep it on loopback."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8090
    """Port of the control API; 0 takes a free one."""


class Config(Section):
    """The whole file."""

    daemon: Daemon = Daemon()
    kafka: Kafka = Kafka()
    buffer: Buffer = Buffer()
    round: Round = Round()
    sampling: Sampling = Sampling()
    scorers: tuple[ScorerConfig, ...] = ()
    training: Training = Training()
    gate: Gate = Gate()
    serving: Serving = Serving()
    rollout: Rollout = Rollout()
    gateway: Gateway = Gateway()
    control: Control = Control()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [s.name for s in self.scorers] + [s.name for s in self.sampling.strategies]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"names of scorers and strategies must be unique; {', '.join(twice)} is used twice")
        if self.gate.min_prompts > self.gate.prompts:
            raise ValueError(f"gate.min_prompts ({self.gate.min_prompts}) exceeds gate.prompts ({self.gate.prompts})")
        if self.serving.in_place_alias and (self.rollout.canary_fractions or self.rollout.bake_conversations):
            raise ValueError(
                "serving.in_place_alias delivers without a gateway, so nobody splits or counts traffic: set "
                "rollout.canary_fractions = [] and rollout.bake_conversations = 0"
            )
        if self.serving.in_place_alias == self.serving.base_model:
            raise ValueError("serving.in_place_alias must not be serving.base_model: vLLM refuses that name")
        if self.training.rank > self.serving.max_rank:
            raise ValueError(
                f"training.rank ({self.training.rank}) exceeds serving.max_rank ({self.serving.max_rank}); "
                "vLLM would refuse the adapter: raise --max-lora-rank and serving.max_rank, or lower the rank"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of every effective value but secrets: which settings made an adapter."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_config(path: Path) -> Config:
    """Read and check a config file. Raises ConfigError with one line per problem."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; pass --config FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return parse_config(data, source=str(path))


def parse_config(data: Mapping[str, Any], *, source: str = "config") -> Config:
    """Check a parsed file. Raises ConfigError with one line per problem."""
    try:
        return Config.model_validate(dict(data))
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors(include_url=False, include_input=False)]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "(file)"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(known))}"
        return f"unknown key {key!r}; {hint}"
    return f"{key}: {str(problem['msg']).removeprefix('Value error, ')}"


def _known_keys(location: Sequence[str]) -> list[str]:
    """Field names of the section at `location` (list indices are passed through)."""
    model: type[BaseModel] = Config
    for part in location:
        if not part.isdigit():
            model = _section_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section_of(arg))), None)
