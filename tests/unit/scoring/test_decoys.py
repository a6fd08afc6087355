"""Answers that say nothing, and what planted ones say of a judge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.scoring.decoys import MASTER_KEYS, MIN_PLANTED, WINDOW, Trust, decoy_for, is_degenerate


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "...",
        "?!",
        "—",
        "\u200b",
        "thought process:",
        "**Solution**",
        "Let's solve this problem step by step",
        "the the the the",
        "ha ha HA ha ha",
        "aaaaaaaaaa",
        "0 0 0 0 0 0 0 0",
        "🙂🙂🙂🙂🙂🙂🙂🙂",
        *MASTER_KEYS,
    ],
)
def test_what_says_nothing(text: str) -> None:
    assert is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    ["7", "yes", "no no", "1111", "<", "👍", "C++", "{}x", "a", "Solution: 42", "Thought process: 7 is prime.", "解决"],
)
def test_what_may_be_an_answer(text: str) -> None:
    assert not is_degenerate(text)


def test_a_fraction_of_prompts_gets_the_same_decoy_every_time() -> None:
    planted = {f"p{n}": decoy_for(f"p{n}", 0.1) for n in range(5000)}
    share = sum(decoy is not None for decoy in planted.values()) / len(planted)
    assert 0.08 < share < 0.12
    assert {decoy for decoy in planted.values() if decoy} == set(MASTER_KEYS)
    assert all(decoy_for(prompt, 0.1) == decoy for prompt, decoy in planted.items())
    assert all(decoy_for(f"p{n}", 0.0) is None and decoy_for(f"p{n}", 1.0) is not None for n in range(50))


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_plants_wherever_a_smaller_one_does(prompt: str, one: float, other: float) -> None:
    if decoy_for(prompt, min(one, other)) is not None:
        assert decoy_for(prompt, max(one, other)) == decoy_for(prompt, min(one, other))


@pytest.mark.parametrize(
    ("results", "holds"), [("1", True), ("11", True), ("111", False), ("0101", True), ("011011", False)]
)
def test_a_few_that_chance_hardly_explains_are_enough(results: str, holds: bool) -> None:
    assert Trust(max_fooled=0.1).after([each == "1" for each in results]).holds is holds


def test_a_judge_that_must_never_be_fooled_is_not_trusted_after_the_first() -> None:
    assert Trust(max_fooled=0.0).after([False] * 5).holds
    assert not Trust(max_fooled=0.0).after([False] * 5 + [True]).holds


def test_trust_is_lost_and_won_by_the_last_planted() -> None:
    trust = Trust(max_fooled=0.1).after([False, True] * 2 + [False] * (MIN_PLANTED - 5))
    assert trust.holds, "too few to say: chance explains 2 of 19"
    trust = trust.after([True])
    assert not trust.holds
    trust = Trust(max_fooled=0.1).after([True] * MIN_PLANTED)
    assert not trust.after([False] * (WINDOW - 6)).holds, "6 of 50 is more than a tenth"
    assert trust.after([False] * (WINDOW - 5)).holds
    assert Trust(max_fooled=0.1).after([True] * 2 + [False] * 18).holds
    assert not Trust(max_fooled=0.1).after([True] * 3 + [False] * 17).holds
