"""A round and its stages: sampling, scoring, training, the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tao_daemon.config.values import Fraction, Positive, Seconds, Section


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
