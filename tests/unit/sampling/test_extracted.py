"""The tokens that say an extracted answer, or none where the template would make other ones."""

from __future__ import annotations

import pytest

from tao_daemon.sampling.extracted import answer_tokens, is_sayable, tokenize_body

END = frozenset({2})


def test_the_answer_is_what_follows_the_prompt_up_to_the_end_token() -> None:
    assert answer_tokens([1, 5, 6], [1, 5, 6, 10, 11, 2, 99], END, 8) == (10, 11, 2)


@pytest.mark.parametrize(
    ("conversation", "limit"),
    [
        ([1, 5, 7, 10, 2], 8),
        ([1, 5], 8),
        ([1, 5, 6], 8),
        ([1, 5, 6, 10, 11], 8),
        ([1, 5, 6, 2, 99], 8),
        ([1, 5, 6, 10, 2, 11, 2], 8),
        ([1, 5, 6, 10, 11, 2], 2),
    ],
)
def test_there_are_none_where_they_would_not_be_the_plain_prompts(conversation: list[int], limit: int) -> None:
    assert answer_tokens([1, 5, 6], conversation, END, limit) is None


def test_without_a_known_end_token_there_are_none() -> None:
    assert answer_tokens([1], [1, 10, 2], frozenset(), 8) is None


def test_the_end_token_counts_towards_the_limit() -> None:
    assert answer_tokens([1], [1, 10, 11, 2], END, 3) == (10, 11, 2)


def test_what_shapes_the_template_is_passed_on() -> None:
    request = {"messages": [{"role": "user", "content": "q"}], "tools": ["t"], "temperature": 0.5, "chat_template": "c"}
    assert tokenize_body(request, model="m", answer="a") == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "tools": ["t"],
        "chat_template": "c",
        "add_generation_prompt": False,
    }


@pytest.mark.parametrize(
    ("answer", "stop", "sayable"),
    [("a", None, True), ("a b", " ", False), ("a", ["b", "a"], False), ("a", ["", "b"], True), (" ", None, False),
     (None, None, False)],
)  # fmt: skip
def test_an_answer_that_the_client_would_have_cut_cannot_be_given(
    answer: str | None, stop: str | list[str] | None, sayable: bool
) -> None:
    assert is_sayable(answer, stop) is sayable
