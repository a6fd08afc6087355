"""The bodies that are sent: what defines the prompt stays, what reshapes the distribution goes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.sampling.requests import answer_body, length_limit, sampling_body, seed_for

CHAT: dict[str, Any] = {
    "model": "assistant",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "chat_template_kwargs": {"enable_thinking": False},
    "response_format": {"type": "json_object"},
    "stop": ["END"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.2,
    "top_p": 0.5,
    "min_tokens": 5,
    "logit_bias": {"1": 5},
    "presence_penalty": 1.0,
    "max_completion_tokens": 40,
    "n": 3,
    "user": "u",
    "seed": 9,
}


def sampled(request: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return sampling_body(request, **{"model": "m", "completions": 8, "max_tokens": 64, "seed": 1, **changes})


def answered(request: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return answer_body(request, **{"model": "m", "max_tokens": 64, "temperature": 0.0, "seed": 0, **changes})


def test_a_sampling_body_is_exactly_the_prompt_at_the_models_own_distribution() -> None:
    assert sampled(CHAT) == {
        "messages": CHAT["messages"],
        "tools": CHAT["tools"],
        "tool_choice": "none",
        "chat_template_kwargs": {"enable_thinking": False},
        "stop": ["END"],
        "model": "m",
        "n": 8,
        "max_tokens": 40,
        "seed": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logprobs": True,
        "top_logprobs": 0,
        "return_token_ids": True,
    }


def test_a_completions_request_asks_for_logprobs_as_a_count() -> None:
    body = sampled({"prompt": "The sky is", "max_tokens": 500})
    assert (body["prompt"], body["logprobs"], body["max_tokens"]) == ("The sky is", 0, 64)
    assert not {"top_logprobs", "tool_choice"} & set(body)


def test_an_answer_body_is_the_clients_but_for_what_would_change_the_measurement() -> None:
    body = answered(CHAT)
    kept = {key: CHAT[key] for key in ("messages", "tools", "tool_choice", "response_format", "stop", "top_p")}
    assert kept.items() <= body.items()
    assert (body["temperature"], body["n"], body["seed"], body["model"], body["max_tokens"]) == (0.0, 1, 0, "m", 40)
    assert not {"stream", "stream_options", "user", "max_completion_tokens"} & set(body)


def test_the_clients_request_is_left_alone() -> None:
    before = repr(CHAT)
    sampled(CHAT), answered(CHAT)
    assert repr(CHAT) == before


@pytest.mark.parametrize("bad", [None, "40", 0, -1, True, 3.5])
def test_a_limit_that_is_no_positive_integer_is_not_a_limit(bad: Any) -> None:
    assert length_limit({"max_tokens": bad}, 64) == 64


def test_the_smallest_limit_counts() -> None:
    assert length_limit({"max_tokens": 30, "max_completion_tokens": 20}, 64) == 20


@given(st.integers(0, 2**40), st.text(max_size=8), st.text(max_size=8))
def test_seeds_are_stable_valid_and_differ_by_strategy(seed: int, prompt_id: str, strategy: str) -> None:
    value = seed_for(seed, prompt_id, strategy)
    assert value == seed_for(seed, prompt_id, strategy)
    assert 0 <= value < 2**31
    assert value != seed_for(seed + 1, prompt_id, strategy)
