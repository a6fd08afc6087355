"""What is asked of the model server: the HTTP bodies, built from a client's request.

Training samples must come from the model's own distribution, so a sampling body keeps only what defines the
prompt and where an answer ends. Whatever reshapes the distribution is left out: temperature, top_p,
penalties, `logit_bias`, `min_tokens`, and all that constrains decoding. So `response_format` is dropped (the
scorer still checks it) and tools stay in the chat template only: `tool_choice` becomes "none", with which
vLLM renders the tools, neither parses nor constrains the answer, and needs no tool parser. A server that was
started with --exclude-tools-when-tool-choice-none leaves them out of the prompt: then samples, and the training on
them, are about a prompt without its tools, so sample from no such server.
An evaluation body is the client's own but for what would change the measurement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tao_daemon.domain.completion import client_limit

Body = dict[str, Any]

_PROMPT_FIELDS = frozenset({
    "messages", "prompt", "tools", "documents", "chat_template", "chat_template_kwargs", "reasoning_effort",
    "add_generation_prompt", "continue_final_message", "add_special_tokens", "mm_processor_kwargs",
    "media_io_kwargs", "truncate_prompt_tokens", "truncation_side",
})  # fmt: skip
_END_FIELDS = frozenset({"stop", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens"})
_NOT_FOR_ANSWERS = frozenset({
    "stream", "stream_options", "n", "best_of", "use_beam_search", "max_completion_tokens", "user",
    "metadata", "store", "service_tier", "priority", "request_id", "cache_salt", "logprobs", "top_logprobs",
    "prompt_logprobs", "echo", "kv_transfer_params", "ec_transfer_params",
})  # fmt: skip
_UNSHAPED = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
"""The model's own distribution: then the server's raw log-probabilities are the behaviour's."""
_UNSHAPING: Mapping[str, Any] = MappingProxyType({})


def sampling_body(
    request: Mapping[str, Any],
    *,
    model: str,
    completions: int,
    max_tokens: int,
    seed: int,
    shaping: Mapping[str, Any] = _UNSHAPING,
) -> Body:
    """Ask for `completions` samples with token ids and log-probabilities. Lengths in tokens.

    `shaping`: fields that change the distribution after all, for exploration.
    """
    body = {key: value for key, value in request.items() if key in _PROMPT_FIELDS | _END_FIELDS}
    if "tools" in body:
        body["tool_choice"] = "none"
    body |= _UNSHAPED
    # Chat wants a flag, completions a count of alternatives; 0 alternatives still gives the sampled token's.
    body |= {"logprobs": True, "top_logprobs": 0} if "messages" in body else {"logprobs": 0}
    body |= {"model": model, "n": completions, "seed": seed, "return_token_ids": True}
    body["max_tokens"] = length_limit(request, max_tokens)
    return body | dict(shaping)


def answer_body(request: Mapping[str, Any], *, model: str, max_tokens: int, temperature: float, seed: int) -> Body:
    """Ask for one answer as the client would get it, at the gate's temperature."""
    body = {key: value for key, value in request.items() if key not in _NOT_FOR_ANSWERS}
    body |= {"model": model, "n": 1, "temperature": temperature, "seed": seed, "return_token_ids": True}
    body["max_tokens"] = length_limit(request, max_tokens)
    return body


def length_limit(request: Mapping[str, Any], max_tokens: int) -> int:
    """The smallest of our limit and the client's own, in tokens."""
    return min(max_tokens, client_limit(request) or max_tokens)


def seed_for(seed: int, prompt_id: str, strategy: str) -> int:
    """An independent 31-bit seed per prompt and strategy; vLLM adds the sample's index to it."""
    digest = hashlib.blake2b(f"{seed}\x00{prompt_id}\x00{strategy}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
