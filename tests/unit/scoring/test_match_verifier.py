"""Match and math: scores by what the request expects."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.scoring.match_verifier import MAX_CHARACTERS, MatchVerifier, Mode
from tao_daemon.scoring.math_verifier import MathVerifier
from tao_daemon.scoring.verifier import Failure

EVIL = "regex:^(a|aa)+$"


def match(mode: Mode = "exact", expected: str = "json:/metadata/expected", answer: str = "whole") -> MatchVerifier:
    return MatchVerifier(expected, answer, mode=mode, timeout_seconds=1.0)


def math(tolerance: float = 1e-9, expected: str = "regex:What is (.*)\\?", answer: str = "last_number") -> MathVerifier:
    return MathVerifier(expected, answer, tolerance=tolerance, timeout_seconds=1.0)


def wants(value: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "?"}], "metadata": {"expected": value}}


def asks(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("Berlin", " berlin\n", 1.0),
        ("New  York", "new york", 1.0),
        ("STRASSE", "straße", 1.0),
        ("caf\u00e9", "cafe\u0301", 1.0),
        ("ﬁne ½", "fine 1⁄2", 1.0),
        (5, "5", 1.0),
        (True, "true", 1.0),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}', 1.0),
        ("Berlin", "Berlin!", 0.0),
        ("Berlin", "", 0.0),
    ],
)
def test_an_exact_match_looks_past_case_white_space_and_unicode_forms(expected: Any, answer: str, score: float) -> None:
    assert match().check(wants(expected), answer) == score


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [("abcd", "ABCD", 1.0), ("abcd", "abxd", 0.75), ("abcd", "bcd", 6 / 7), ("abcd", "wxyz", 0.0), ("abcd", "", 0.0)],
)
def test_a_fuzzy_match_is_the_common_share(expected: str, answer: str, score: float) -> None:
    assert match("fuzzy").check(wants(expected), answer) == pytest.approx(score)


def test_the_value_is_taken_out_of_the_answer() -> None:
    assert match(answer="after:Answer:").check(wants("yes"), "I think. Answer: Yes") == 1.0
    assert match(answer="after:Answer:").check(wants("yes"), "yes") == 0.0


@pytest.mark.parametrize("request_", [{}, wants(None), wants(" "), wants("x" * (MAX_CHARACTERS + 1)), {"metadata": 1}])
def test_a_prompt_that_expects_nothing_is_not_for_match(request_: dict[str, Any]) -> None:
    assert not match().applies(request_)
    assert match().check(request_, "x") is Failure.ERROR


@given(expected=st.text(), answer=st.text(), mode=st.sampled_from(["exact", "fuzzy"]))
@settings(deadline=None)
def test_any_texts_score_within_bounds(expected: str, answer: str, mode: Mode) -> None:
    verifier, request = match(mode), wants(expected)
    if verifier.applies(request):
        score = verifier.check(request, answer)
        assert isinstance(score, float)
        assert 0.0 <= score <= 1.0
        assert verifier.check(request, expected) == 1.0


@pytest.mark.parametrize("unit", ["ab", "\ufdfa", "a ", "\U0001f600"])
def test_huge_values_end_in_time(unit: str) -> None:
    started = time.process_time()
    assert match("fuzzy").check(wants("ba" * (MAX_CHARACTERS // 2)), unit * (200_000 // len(unit))) == 0.0
    match("fuzzy").check(wants("ba" * (MAX_CHARACTERS // 2)), unit * (MAX_CHARACTERS // 18 // len(unit)))
    match("fuzzy").check(wants("ba" * (MAX_CHARACTERS // 2)), "ab" * (MAX_CHARACTERS // 2))
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        ("What is 6 * 7?", "6 * 7 is 42.", 1.0),
        ("What is 6 * 7?", "41", 0.0),
        ("What is 6 * 7?", "forty-two", 0.0),
        ("What is 1,000 + 234.5?", "It is $1,234.50", 1.0),
        ("What is 3 / 4?", "0.75", 1.0),
        ("What is 3 / 4?", "3/4", 1.0),
        ("What is 3 / 4?", "75%", 1.0),
        ("What is 1 / 3?", "0.333", 0.0),
        ("What is 15% of 80?", "12", 1.0),
        ("What is 3 − 8?", "−5", 1.0),
        ("What is 3 - 3?", "0", 1.0),
        ("What is 3 - 3?", "0.0000000001", 0.0),
        ("What is 10 ** 12?", "1e12", 1.0),
    ],
)
def test_math_compares_values(question: str, answer: str, score: float) -> None:
    assert math().applies(asks(question))
    assert math().check(asks(question), answer) == score


def test_math_takes_the_first_number_of_what_was_extracted() -> None:
    assert math(answer="boxed").check(asks("What is 2 + 3?"), r"2 + 3 = \boxed{x = 5\text{ m}^2}") == 1.0


def test_math_reads_values_of_the_request() -> None:
    assert math(expected="json:/metadata/expected").check(wants(42), "42.0") == 1.0
    assert math(expected="json:/metadata/expected").check(wants("1/8"), "0.125") == 1.0


@given(st.fractions(max_denominator=10**6).filter(bool), st.floats(0.0, 0.5), st.floats(-1.0, 1.0))
@settings(deadline=None)
def test_the_tolerance_is_relative_and_exact(value: Fraction, tolerance: float, off: float) -> None:
    given_ = value * (1 + Fraction(off))
    text = f"{given_.numerator}/{given_.denominator}"
    if len(text) > 250:
        return
    request = asks(f"What is {value.numerator}/{value.denominator}?")
    right = abs(Fraction(off)) <= Fraction(tolerance)
    assert math(tolerance=tolerance).check(request, text) == float(right)


@pytest.mark.parametrize("question", ["What is love?", "What is 9**9**9?", "What is 1/0?", "Hello", "What is ?"])
def test_a_prompt_without_a_value_is_not_for_math(question: str) -> None:
    started = time.process_time()
    assert not math().applies(asks(question))
    assert math().check(asks(question), "1") is Failure.ERROR
    assert time.process_time() - started < 1


@given(st.text(), st.text())
@settings(deadline=None)
def test_math_never_raises(question: str, answer: str) -> None:
    request = asks(f"What is {question}?")
    math().applies(request)
    assert math().check(request, answer) in (0.0, 1.0, Failure.ERROR)
    assert math().check(asks("What is 1?"), answer) in (0.0, 1.0)


def test_out_of_time_is_a_failure_and_not_a_prompt_for_somebody_else() -> None:
    hostile, started = "a" * 60 + "b", time.process_time()
    for verifier in (
        MatchVerifier(EVIL, "whole", mode="exact", timeout_seconds=0.1),
        MathVerifier(EVIL, "whole", tolerance=0.0, timeout_seconds=0.1),
    ):
        assert verifier.applies(asks(hostile))
        assert verifier.check(asks(hostile), "1") is Failure.TIMEOUT
    for verifier in (
        MatchVerifier("whole", EVIL, mode="exact", timeout_seconds=0.1),
        MathVerifier("whole", EVIL, tolerance=0.0, timeout_seconds=0.1),
    ):
        assert verifier.check(asks("1"), hostile) is Failure.TIMEOUT
    assert time.process_time() - started < 5


@pytest.mark.parametrize(("expected", "answer"), [("nothing", "whole"), ("whole", "regex:[")])
def test_a_bad_extractor_is_refused(expected: str, answer: str) -> None:
    with pytest.raises(ValueError, match="extractor"):
        match(expected=expected, answer=answer)
    with pytest.raises(ValueError, match="extractor"):
        math(expected=expected, answer=answer)
