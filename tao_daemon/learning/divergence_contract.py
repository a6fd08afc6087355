"""What the daemon and the trainer process say to each other when a candidate's divergence is measured, as text.

Pure. Token ids and numbers only; no text of prompts or answers.

divergence.json + answers.jsonl → worker → result.json, written last
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tao_daemon.domain.completion import CompletionGroup
from tao_daemon.domain.ports import Divergence
from tao_daemon.learning.contract import WorkerResult, decode_fields, decode_tokens

DIVERGENCE_FILE = "divergence.json"
ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class DivergenceSpec:
    """One measurement, complete with the answers."""

    base_model: str
    """Absolute path of the base model's folder."""
    base_digest: str
    """Digest of the base that the candidate was trained on; another base is refused."""
    candidate: str
    """Folder of the adapter that gave the answers."""
    start: str | None
    """Folder of the adapter that training started from, None for the base model."""
    micro_batch_tokens: int
    rank: int
    memory_headroom: float
    dtype: str


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """An answer of the candidate's own; neither part is empty."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


def encode_divergence_spec(spec: DivergenceSpec) -> str:
    return json.dumps(dataclasses.asdict(spec), indent=2, sort_keys=True) + "\n"


def decode_divergence_spec(text: str) -> DivergenceSpec:
    """Raises ValueError naming the key that is missing, unknown, or of the wrong type."""
    return DivergenceSpec(**decode_fields(text, DIVERGENCE_FILE, DivergenceSpec))


def encode_answers(groups: Iterable[CompletionGroup]) -> list[str]:
    """A line for every plain completion that has tokens, without the line break."""
    return [
        json.dumps({"prompt_token_ids": group.prompt_token_ids, "token_ids": completion.token_ids})
        for group in groups
        for completion in group.completions
        if completion.is_plain and completion.token_ids and group.prompt_token_ids
    ]


def decode_answers(lines: Iterable[str]) -> list[SampledAnswer]:
    """Raises ValueError naming the line."""
    answers = []
    for number, line in enumerate(lines, start=1):
        try:
            data = json.loads(line)
            answer = SampledAnswer(decode_tokens(data["prompt_token_ids"]), decode_tokens(data["token_ids"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{ANSWERS_FILE} line {number} is not an answer: {type(error).__name__}") from None
        if not answer.prompt_token_ids or not answer.token_ids:
            raise ValueError(f"{ANSWERS_FILE} line {number} has no prompt or no answer")
        answers.append(answer)
    return answers


def result_of(base_digest: str, found: Divergence) -> WorkerResult:
    return WorkerResult(base_digest, {key: float(value) for key, value in dataclasses.asdict(found).items()})


def divergence_of(result: WorkerResult) -> Divergence:
    """The inverse of `result_of`. Raises ValueError when figures are missing."""
    numbers = dict(result.metrics)
    try:
        answers, tokens = int(numbers.pop("answers")), int(numbers.pop("tokens"))
        return Divergence(**numbers, answers=answers, tokens=tokens)
    except (KeyError, TypeError) as error:
        raise ValueError(f"result.json is no divergence: {type(error).__name__}") from None
