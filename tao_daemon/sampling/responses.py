"""What the model server answered: completions and answers, read from its HTTP bodies.

Text and token ids are taken as they came; nothing is re-tokenised. A completion whose token ids and
log-probabilities do not belong together cannot be trained on: it is left out and counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tao_daemon.domain.completion import Answer, Completion

_NOT_FINISHED = (None, "abort", "error")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The completions of one request. `prompt_token_ids` are those of the prompt that was asked."""

    prompt_token_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    malformed: int
    """Completions that were asked for and are not here."""
    end_tokens: frozenset[int] = frozenset()
    """Tokens that ended a completion by themselves, not because of a stop string."""


def parse_completions(response: Mapping[str, Any], *, expected: int, strategy: str, first_index: int) -> Parsed:
    """Read `expected` choices of a chat or completions response, indices counted from `first_index`.

    Another number of choices than asked for (a request that batches several prompts) spoils them all.
    """
    choices = response.get("choices")
    if not isinstance(choices, list) or len(choices) != expected:
        return Parsed((), (), expected)
    choices = [choice if isinstance(choice, Mapping) else {} for choice in choices]
    prompt = _token_ids(response.get("prompt_token_ids")) or _token_ids(choices[0].get("prompt_token_ids"))
    if not prompt:
        return Parsed((), (), expected)
    found = [_completion(choice, first_index + place, strategy) for place, choice in enumerate(choices)]
    kept = tuple(completion for completion in found if completion is not None)
    ends = frozenset(
        completion.token_ids[-1]
        for completion, choice in zip(found, choices, strict=True)
        if completion is not None and completion.token_ids and _ended(choice)
    )
    return Parsed(prompt, kept, expected - len(kept), ends)


def parse_answer(response: Mapping[str, Any]) -> Answer | None:
    """Read the only choice; None when there is not exactly one or it did not finish."""
    choices = response.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        return None
    (choice,) = choices
    tokens, finish = _token_ids(choice.get("token_ids")), choice.get("finish_reason")
    return None if tokens is None or finish in _NOT_FINISHED else Answer(_text(choice), len(tokens), str(finish))


def _completion(choice: Mapping[str, Any], index: int, strategy: str) -> Completion | None:
    tokens, logprobs = _token_ids(choice.get("token_ids")), _logprobs(choice.get("logprobs"))
    finish = choice.get("finish_reason")
    if tokens is None or logprobs is None or len(tokens) != len(logprobs) or finish in _NOT_FINISHED:
        return None
    return Completion(index, strategy, _text(choice), tokens, logprobs, str(finish))


def _ended(choice: Mapping[str, Any]) -> bool:
    # vLLM: None for the end of text, the token for stop_token_ids, the string for stop.
    return choice.get("finish_reason") == "stop" and not isinstance(choice.get("stop_reason"), str)


def _text(choice: Mapping[str, Any]) -> str:
    """The answer's text; an answer that only calls tools is the JSON of its calls."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return str(choice.get("text") or "")
    if message.get("content") or not message.get("tool_calls"):
        return str(message.get("content") or "")
    calls = [call for call in message["tool_calls"] if isinstance(call, Mapping)]
    return json.dumps([call.get("function") for call in calls], ensure_ascii=False)


def _token_ids(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(token, int) for token in value) else None


def _logprobs(value: Any) -> tuple[float, ...] | None:
    """Chat: `content[*].logprob`; completions: `token_logprobs`. None unless all are finite and at most 0."""
    if not isinstance(value, Mapping):
        return None
    raw = value.get("token_logprobs")
    if isinstance(content := value.get("content"), list):
        raw = [token.get("logprob") if isinstance(token, Mapping) else None for token in content]
    if not isinstance(raw, list) or not all(_is_logprob(number) for number in raw):
        return None
    return tuple(min(float(number), 0.0) for number in raw)


def _is_logprob(value: Any) -> bool:
    # Rounding in the server's softmax may leave a hair above 0.
    return isinstance(value, int | float) and math.isfinite(value) and value <= 1e-4
