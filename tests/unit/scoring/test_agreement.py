"""Agreement among samples: shares, the band, and what counts as the same answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.clients.extraction import text_extractor
from tao_daemon.scoring.agreement import NO_SPREAD, agreement, canonical

ANSWER = text_extractor("after:Answer:")


def scores(*answers: str | None, low: float = 0.3, high: float = 0.9) -> list[float]:
    return agreement(["?" if a is None else f"Answer: {a}" for a in answers], ANSWER, low=low, high=high)


def test_the_score_is_the_share_of_the_same_answer() -> None:
    assert scores("4", "4.0", "5", "4") == [0.75, 0.75, 0.25, 0.75]


def test_a_completion_without_an_answer_scores_0_and_counts_in_the_share() -> None:
    assert scores("4", "4", None, "5") == [0.5, 0.5, 0.0, 0.25]


@pytest.mark.parametrize(
    "answers",
    [
        ("4", "4", "4", "4"),
        ("1", "2", "3", "4"),
        ("4", None, None),
        (None, None),
        (),
    ],
    ids=["everybody", "nobody", "too few answers", "no answers", "no completions"],
)
def test_outside_the_band_nothing_is_to_be_learnt(answers: tuple[str | None, ...]) -> None:
    assert scores(*answers) == [NO_SPREAD] * len(answers)


def test_half_of_the_completions_with_an_answer_are_enough() -> None:
    assert scores("4", "4", None, None) == [0.5, 0.5, 0.0, 0.0]


def test_both_ends_belong_to_the_band() -> None:
    answers = ("a", "a", "a", "b", "c", "d", "e", "f", "g", "h")
    assert scores(*answers, low=0.3, high=0.3)[0] == 0.3
    assert scores(*answers, low=0.31, high=1.0) == [NO_SPREAD] * 10
    assert scores(*answers, low=0.0, high=0.29) == [NO_SPREAD] * 10


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000.0"),
        ("$5", "5"),
        ("50%", "1/2"),
        ("−3", "-3"),
        ("Paris ", "paris"),
        ("New\nYork", "new  york"),
        ('{"a": 1, "b": [2.0]}', '{"b":[2],"a":1.0}'),
        ('"Paris"', "paris"),
    ],
)
def test_the_same_by_value(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("5 apples", "5 pears"),
        ("[1]", "[true]"),
        ('{"a":1}', '{"a":"1"}'),
        ("[1,2]", "[2,1]"),
        ("a b", "ab"),
        ("null", "0"),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(st.lists(st.none() | st.sampled_from("abc") | st.text(), max_size=12), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_scores_lie_in_bounds_and_do_not_depend_on_order(answers: list[str | None], low: float, high: float) -> None:
    found = scores(*answers, low=low, high=high)
    assert len(found) == len(answers)
    assert all(0.0 <= score <= 1.0 for score in found)
    assert scores(*reversed(answers), low=low, high=high) == found[::-1]


def test_what_the_extractor_raises_passes_through() -> None:
    def fail(text: str) -> str | None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        agreement(["a"], fail, low=0.3, high=0.9)
