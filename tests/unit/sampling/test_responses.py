"""What the server answered, good and bad. The good bodies have the shape that vLLM 0.32 was seen to send."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tao_daemon.domain.completion import Answer, Completion
from tao_daemon.sampling.responses import parse_answer, parse_completions


def chat_choice(**changes: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi there"},
        "logprobs": {"content": [{"token": "Hi", "logprob": -1.5}, {"token": " there", "logprob": -0.25}]},
        "finish_reason": "stop",
        "token_ids": [10, 11],
    }
    return choice | changes


def chat(*choices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"prompt_token_ids": [1, 2, 3], "choices": list(choices)} | changes


def parse(response: dict[str, Any], expected: int = 1) -> Any:
    return parse_completions(response, expected=expected, strategy="plain", first_index=5)


def test_chat_choices_become_completions_counted_from_the_first_index() -> None:
    parsed = parse(chat(chat_choice(), chat_choice(index=1)), expected=2)
    assert parsed.prompt_token_ids == (1, 2, 3)
    assert parsed.malformed == 0
    assert parsed.completions == (
        Completion(5, "plain", "Hi there", (10, 11), (-1.5, -0.25), "stop"),
        Completion(6, "plain", "Hi there", (10, 11), (-1.5, -0.25), "stop"),
    )


def test_completions_carry_their_prompt_and_logprobs_elsewhere() -> None:
    choice = {
        "text": " blue",
        "logprobs": {"token_logprobs": [-0.5], "tokens": [" blue"], "text_offset": [0]},
        "finish_reason": "length",
        "token_ids": [7],
        "prompt_token_ids": [4, 5],
    }
    parsed = parse({"choices": [choice]})
    assert parsed.prompt_token_ids == (4, 5)
    assert parsed.completions == (Completion(5, "plain", " blue", (7,), (-0.5,), "length"),)


def test_an_empty_completion_is_a_completion() -> None:
    choice = chat_choice(
        message={"role": "assistant", "content": ""}, logprobs={"content": [{"logprob": 0.0}]}, token_ids=[2]
    )
    assert [c.text for c in parse(chat(choice)).completions] == [""]


def test_a_hair_above_zero_is_rounding() -> None:
    choice = chat_choice(logprobs={"content": [{"logprob": 1e-7}, {"logprob": -1}]})
    assert parse(chat(choice)).completions[0].logprobs == (0.0, -1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": [10]},
        {"token_ids": None},
        {"token_ids": ["10", "11"]},
        {"logprobs": None},
        {"logprobs": {"content": None}},
        {"logprobs": {"content": [{"logprob": -1.0}]}},
        {"logprobs": {"content": [{"logprob": -1.0}, {"logprob": math.nan}]}},
        {"logprobs": {"content": [{"logprob": -1.0}, {"logprob": -math.inf}]}},
        {"logprobs": {"content": [{"logprob": -1.0}, {"logprob": 0.5}]}},
        {"logprobs": {"content": [{"logprob": -1.0}, {}]}},
        {"logprobs": {"content": [{"logprob": -1.0}, None]}},
        {"logprobs": {"content": 2}},
        {"finish_reason": None},
        {"finish_reason": "abort"},
    ],
)
def test_a_completion_that_cannot_be_trained_on_is_left_out_alone(changes: dict[str, Any]) -> None:
    parsed = parse(chat(chat_choice(**changes), chat_choice()), expected=2)
    assert parsed.malformed == 1
    assert [c.index for c in parsed.completions] == [6]


@pytest.mark.parametrize("null", [0, 1])
def test_a_null_choice_is_malformed_alone(null: int) -> None:
    choices: list[Any] = [chat_choice(), chat_choice()]
    choices[null] = None
    parsed = parse({"prompt_token_ids": [1], "choices": choices}, expected=2)
    assert parsed.malformed == 1
    assert [c.index for c in parsed.completions] == [5 + 1 - null]


def test_a_null_call_of_a_tool_is_no_call() -> None:
    choice = chat_choice(message={"content": None, "tool_calls": [None, {"function": {"name": "f"}}]})
    answer = parse_answer(chat(choice))
    assert answer is not None
    assert answer.text == '[{"name": "f"}]'


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": [None, None]},
        {"choices": None},
        chat(chat_choice(), chat_choice(), chat_choice()),
        chat(chat_choice(), chat_choice(), prompt_token_ids=None),
        chat(chat_choice(), chat_choice(), prompt_token_ids=[]),
    ],
)
def test_an_answer_of_the_wrong_shape_spoils_all(response: dict[str, Any]) -> None:
    parsed = parse(response, expected=2)
    assert (parsed.completions, parsed.malformed) == ((), 2)


def test_an_answer_has_its_length_in_tokens() -> None:
    assert parse_answer(chat(chat_choice(logprobs=None))) == Answer("Hi there", 2, "stop")


def test_an_answer_that_only_calls_a_tool_is_the_json_of_the_call() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = chat_choice(message={"content": None, "tool_calls": [call]}, finish_reason="tool_calls")
    answer = parse_answer(chat(choice))
    assert answer is not None
    assert answer.text == '[{"name": "f", "arguments": "{}"}]'


@pytest.mark.parametrize(
    "bad",
    [
        {},
        chat(),
        chat(chat_choice(), chat_choice()),
        chat(chat_choice(finish_reason=None)),
        {"choices": [None]},
    ],
)
def test_no_single_finished_answer_is_no_answer(bad: dict[str, Any]) -> None:
    assert parse_answer(bad) is None


def test_end_tokens_are_those_of_completions_that_ended_by_themselves() -> None:
    choices = [
        chat_choice(),
        chat_choice(token_ids=[10, 12], stop_reason=12),
        chat_choice(token_ids=[10, 13], stop_reason="END"),
        chat_choice(token_ids=[10, 14], finish_reason="length"),
        chat_choice(token_ids=[15]),
    ]
    assert parse(chat(*choices), expected=5).end_tokens == {11, 12}
