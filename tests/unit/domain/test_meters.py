"""What a set of answers is like, and that the meters do not depend on how many completions a prompt has."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.completion import PLAIN, Answer, Completion, CompletionGroup
from tao_daemon.domain.meters import is_refusal, is_repetitive, measure, measure_answers


def group(*texts: str, logprobs: tuple[float, ...] = (-1.0, -3.0), finish: str = "stop") -> CompletionGroup:
    completions = (
        Completion(place, PLAIN, text, (7,) * len(logprobs), logprobs, finish) for place, text in enumerate(texts)
    )
    return CompletionGroup("p", (1,), tuple(completions))


def test_nothing_measured_is_no_meter() -> None:
    assert measure([]) == {}
    assert measure_answers([]) == {}
    assert not {"distinct_1", "distinct_texts"} & set(measure([group("alone")]))


def test_entropy_is_the_mean_over_prompts_of_what_plain_completions_did_not_expect() -> None:
    long = group("a", logprobs=(-1.0,) * 6)
    hinted = CompletionGroup("h", (1,), (Completion(0, "hint", "x", (1,), (-50.0,), "stop"),))
    assert measure([group("a"), long, hinted])["entropy"] == pytest.approx((2.0 + 1.0) / 2)
    assert measure([group("a"), group("b", logprobs=())])["entropy"] == pytest.approx(2.0)


def test_lengths_are_mean_and_a_length_that_occurred() -> None:
    lengths = [Answer("a", length, "stop") for length in range(1, 101)]
    meters = measure_answers(lengths)
    assert (meters["tokens_mean"], meters["tokens_p95"]) == (50.5, 95.0)
    assert measure_answers(lengths[:1])["tokens_p95"] == 1.0


def test_shares_count_each_sign_of_trouble() -> None:
    answers = [
        Answer("fine", 1, "stop"),
        Answer(" \n", 1, "stop"),
        Answer("cut", 9, "length"),
        Answer("I\u2019m sorry, but I can\u2019t help with that.", 9, "stop"),
        Answer("so " * 20, 20, "length"),
    ]
    meters = measure_answers(answers)
    assert {name: meters[name] for name in ("empty", "truncated", "refusals", "repeated")} == {
        "empty": 0.2, "truncated": 0.4, "refusals": 0.2, "repeated": 0.2,
    }  # fmt: skip


def test_diversity_compares_two_completions_of_a_prompt() -> None:
    same = measure([group("a b c", "a b c")])
    assert (same["distinct_1"], same["distinct_2"], same["distinct_texts"]) == (0.5, 0.5, 0.0)
    other = measure([group("a b c", "d e f")])
    assert (other["distinct_1"], other["distinct_2"], other["distinct_texts"]) == (1.0, 1.0, 1.0)
    assert measure([group("a a a a", "a a a a")])["distinct_1"] == pytest.approx(1 / 8)
    assert measure([group("", "")])["distinct_texts"] == 0.0


@given(st.integers(2, 12))
def test_more_completions_of_one_kind_do_not_look_like_less_diversity(count: int) -> None:
    few, many = measure([group("a b", "a b")]), measure([group(*["a b"] * count)])
    assert many == pytest.approx(few)
    assert measure([group(*(f"{n} {n}x" for n in range(count)))])["distinct_1"] == 1.0


def test_a_prompt_that_gets_more_completions_weighs_no_more() -> None:
    def cut_off(count: int) -> CompletionGroup:
        return group(*[""] * count, logprobs=(-3.0,) * 9, finish="length")

    equal = measure([group("fine", "fine"), cut_off(2)])
    adaptive = measure([group("fine", "fine"), cut_off(8)])
    assert (equal["entropy"], equal["tokens_mean"], equal["truncated"]) == (2.5, 5.5, 0.5)
    assert adaptive == pytest.approx(equal)
    # The percentile alone is that of all completions together.
    many = measure([cut_off(1), group(*["fine"] * 40)])
    assert many["tokens_p95"] == 2.0


@given(st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), max_size=4))
def test_meters_are_finite_and_shares_are_shares(texts: list[list[str]]) -> None:
    meters = measure([group(*each) for each in texts])
    assert all(math.isfinite(value) for value in meters.values())
    shares = ("distinct_1", "distinct_2", "distinct_texts", "truncated", "empty", "refusals", "repeated")
    assert all(0.0 <= meters[name] <= 1.0 for name in shares if name in meters)


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I cannot assist with this request.", True),
        ("  **I'm unable to** say.", True),
        ("As an AI language model, I", True),
        ("I can help with that.", False),
        ("The answer is: I cannot help.", False),
        ("", False),
    ],
)
def test_refusals_are_known_by_their_opening(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("no " * 16, True),
        ("no " * 12, False),
        ("It goes: " + "one two three four five, " * 4, True),
        ("one two three four five, " * 3, False),
        ("a" * 40, True),
        ("haha" * 10, True),
        ("- item one\n- item two\n- item three\n- item four", False),
        ("好" * 16, True),
        ("Once said, it is " + "said " * 20 + "and ends otherwise.", False),
        ("", False),
    ],
)
def test_a_loop_at_the_end_is_repetition(text: str, repeats: bool) -> None:
    assert is_repetitive(text) is repeats
