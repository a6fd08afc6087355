"""What the daemon and the trainer process say to each other, as text.

Pure: encodes and decodes, touches no file. Token ids and numbers only; no text of prompts or completions.

spec.json + batch.jsonl → worker → one JSON event per line on stdout → artefact/ → result.json, written last
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.signals import MismatchMeasured, TrainingSignal, TrainingStepped

SPEC_FILE = "spec.json"
BATCH_FILE = "batch.jsonl"
RESULT_FILE = "result.json"
LOG_FILE = "worker.log"
ARTEFACT_DIRECTORY = "artefact"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
FINGERPRINT_FILE = "fingerprint.json"

ALGORITHMS = ("clipped_policy_gradient", "grpo", "oapl", "raft")
PHASES = ("loading", "reference", "training", "saving", "measuring")
MAX_REASON = 500
"""Characters of a failure's reason that travel."""


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """One training, complete: with the batch it says all that the worker needs. Units as in `[training]`."""

    base_model: str
    """Absolute path of the base model's folder."""
    start_adapter: str | None
    """Folder of the adapter that sampled, None for the base model."""
    start_base_digest: str | None
    """Digest of the base that the start adapter was trained on; another base is refused."""
    algorithm: str
    rank: int
    alpha: int
    learning_rate: float
    epochs: int
    groups_per_step: int
    max_sequence_tokens: int
    micro_batch_tokens: int
    clip_low: float
    clip_high: float
    strategy_clip_high: float
    value_temperature: float
    policy_temperature: float
    gradient_clip: float
    kl_budget: float
    max_mismatch: float
    min_spread: float
    min_groups: int
    dev_fraction: float
    checkpoint_seconds: float
    memory_headroom: float
    gradient_checkpointing: str
    processes: int
    dtype: str
    seed: int
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: what became of `gradient_checkpointing` once memory was looked at."""
    resume_from: tuple[str, ...] = ()
    """Directories of earlier attempts at the same training, the newest first, as absolute paths."""

    @property
    def rate_key(self) -> str:
        """The configuration's key that `learning_rate` comes from."""
        return "training.continued_learning_rate" if self.start_adapter else "training.learning_rate"


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The worker began one of `PHASES`."""

    name: str


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """The worker gives up; it exits with status 1 after this."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """`result.json`: what was measured."""

    base_digest: str
    metrics: Mapping[str, float]


WorkerEvent = PhaseEntered | TrainingSignal | TrainingFailed


def encode_spec(spec: TrainingSpec) -> str:
    return json.dumps(dataclasses.asdict(spec), indent=2, sort_keys=True) + "\n"


def decode_spec(text: str) -> TrainingSpec:
    """Raises ValueError naming the key that is missing, unknown, or of the wrong type."""
    data = decode_fields(text, SPEC_FILE, TrainingSpec)
    return TrainingSpec(**{**data, "resume_from": tuple(data["resume_from"])})


def decode_fields(text: str, name: str, kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass of plain values, from JSON. Raises ValueError naming the key that is wrong."""
    data = decode_object(text, name)
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    for problem, keys in (
        ("misses", fields.keys() - data.keys()),
        ("has unknown", data.keys() - fields.keys()),
    ):
        if keys:
            raise ValueError(f"{name} {problem} {', '.join(sorted(keys))}; write it with the same version")
    for key, expected in fields.items():
        if not _fits(data[key], expected):
            raise ValueError(f"{name}: {key} is {data[key]!r}, expected {expected}")
    return data


def encode_group(scored: ScoredGroup) -> str:
    """One line of the batch, without the line break."""
    completions = [
        {
            "strategy": completion.strategy,
            "token_ids": completion.token_ids,
            "logprobs": completion.logprobs,
            "finish_reason": completion.finish_reason,
            "extracted": completion.extracted,
            "reward": reward,
        }
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True)
    ]
    group = scored.group
    return json.dumps(
        {"prompt_id": group.prompt_id, "prompt_token_ids": group.prompt_token_ids, "completions": completions}
    )


def decode_batch(lines: Iterable[str]) -> list[ScoredGroup]:
    """Groups without text and without scorers. Raises ValueError naming the line."""
    groups = []
    for number, line in enumerate(lines, start=1):
        try:
            groups.append(_group(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{BATCH_FILE} line {number} is not a scored group: {_what(error)}") from None
    return groups


def encode_event(event: WorkerEvent) -> str:
    """One line of the worker's stdout, without the line break."""
    match event:
        case PhaseEntered():
            return json.dumps({"event": "phase", "name": event.name})
        case MismatchMeasured():
            return json.dumps({"event": "mismatch", "nats": event.nats})
        case TrainingStepped():
            return json.dumps({"event": "progress", **dataclasses.asdict(event)})
        case TrainingFailed():
            return json.dumps({"event": "failed", "reason": event.reason[:MAX_REASON]})


def decode_event(line: str) -> WorkerEvent | None:
    """The event on a line, None for anything else: a wrapper command may print lines of its own."""
    try:
        data = json.loads(line)
        match data["event"]:
            case "phase":
                return PhaseEntered(str(data["name"]))
            case "mismatch":
                return MismatchMeasured(float(data["nats"]))
            case "progress":
                return TrainingStepped(int(data["step"]), int(data["steps"]), float(data["loss"]), float(data["kl"]))
            case "failed":
                return TrainingFailed(str(data["reason"])[:MAX_REASON])
    except (KeyError, TypeError, ValueError):
        pass
    return None


def encode_result(result: WorkerResult) -> str:
    return json.dumps(dataclasses.asdict(result), indent=2, sort_keys=True) + "\n"


def decode_result(text: str) -> WorkerResult:
    """Raises ValueError when it is not a result."""
    data = decode_object(text, RESULT_FILE)
    try:
        metrics = {str(name): float(value) for name, value in data["metrics"].items()}
        if strange := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise ValueError(f"{', '.join(strange)} not finite")
        return WorkerResult(str(data["base_digest"]), metrics)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{RESULT_FILE} is not a result: {_what(error)}") from None


def killed_by(status: int) -> str:
    """Words for a negative exit status."""
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{hint}"


def decode_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError that names the file."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{name} holds {type(data).__name__}, expected an object")
    return data


def _fits(value: object, kind: str) -> bool:
    match kind:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case "bool":
            return isinstance(value, bool)
        case "str | None":
            return value is None or isinstance(value, str)
        case "tuple[str, ...]":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case _:
            return isinstance(value, str)


def _group(data: Mapping[str, Any]) -> ScoredGroup:
    completions = tuple(_completion(index, item) for index, item in enumerate(data["completions"]))
    rewards = tuple(float(item["reward"]) for item in data["completions"])
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError("a reward is not finite")
    group = CompletionGroup(str(data["prompt_id"]), decode_tokens(data["prompt_token_ids"]), completions)
    if not group.prompt_token_ids:
        raise ValueError("the prompt has no tokens")
    return ScoredGroup(group, rewards, scorers=())


def _completion(index: int, data: Mapping[str, Any]) -> Completion:
    token_ids = decode_tokens(data["token_ids"])
    logprobs = tuple(float(value) for value in data["logprobs"])
    extracted = bool(data["extracted"])
    if len(token_ids) != len(logprobs) and not (extracted and not logprobs):
        raise ValueError(f"completion {index} has {len(token_ids)} tokens and {len(logprobs)} log-probabilities")
    if not all(math.isfinite(value) for value in logprobs):
        raise ValueError(f"completion {index} has a log-probability that is not finite")
    return Completion(index, str(data["strategy"]), "", token_ids, logprobs, str(data["finish_reason"]), extracted)


def decode_tokens(values: Iterable[Any]) -> tuple[int, ...]:
    """Token ids. Raises ValueError for anything else."""
    tokens = tuple(values)
    if not all(isinstance(token, int) and token >= 0 for token in tokens):
        raise ValueError("token ids must be integers from 0")
    return tokens


def _what(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
