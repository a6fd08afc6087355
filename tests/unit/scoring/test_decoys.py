"""Answers that say nothing, and what planted ones say of a judge."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.scoring.decoys import MASTER_KEYS, MIN_PLANTED, WINDOW, Trust, decoy_for, is_blank, is_degenerate


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "\u200b",
        "\x00 \ufeff",
        "\u3164",
        "\u2800\ufe0f \u034f",
        ".",
        ":",
        "thought process:",
        " Solution:\n",
        "Let's solve this problem step by step",
        "the " * 20,
        "ha ha HA " * 6,
        "a" * 40,
        "!" * 40,
        "I am sorry. " * 16 + "I am so",
        "🙂" * 16,
    ],
)
def test_what_says_nothing(text: str) -> None:
    assert is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        *("7", "yes", "no no no no", "<", "👍", "C++", "{}x", "a", "Solution: 42", "解决"),
        "Thought process: 7 is prime.",
        *("[]", "{}", "-", "11111111", "0 0 0 0 0 0 0 0", "1" * 50, "10" * 30, "()" * 30, "1, " * 30, "?", "...", "()"),
        *("解", "Solution", "かいせつ", "Respuesta", "**Solution**", "ha ha HA ha ha", "a" * 15, "bb" * 7),
        "a" * 40 + "b",
    ],
)
def test_what_may_be_an_answer(text: str) -> None:
    assert not is_degenerate(text)


@pytest.mark.parametrize("text", ["Solution:", "a" * 40, ".", '""', "x", "❤\ufe0f", "\u0301"])
def test_what_can_be_seen_is_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_a_long_answer_is_looked_through_quickly() -> None:
    text = ("a" * 100_000 + "b") * 2
    started = time.process_time()
    assert not is_degenerate(text)
    assert is_degenerate("ab" * 100_000)
    assert time.process_time() - started < 1.0


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
    ("results", "holds"),
    [
        *(("1", True), ("11", True), ("111", False), ("0101", True), ("011011", False)),
        *(("0" * 13 + "1" * 7, True), ("0" * 12 + "1" * 8, False)),
        *(("0" * 38 + "1" * 12, True), ("0" * 37 + "1" * 13, False), ("1" * 2 + "0" * 50 + "1" * 12, True)),
    ],
)
def test_what_chance_hardly_explains_is_enough(results: str, holds: bool) -> None:
    assert Trust(max_fooled=0.1).after([each == "1" for each in results]).holds is holds


@pytest.mark.parametrize(("fooled", "least", "most"), [(0.05, 0.0, 0.01), (0.1, 0.0, 0.05), (0.3, 0.98, 1.0)])
def test_how_often_a_span_of_two_hundred_loses_trust(fooled: float, least: float, most: float) -> None:
    """Half of what is allowed hardly ever does, what is allowed seldom, three times as much nearly always."""

    def loses(seed: int) -> bool:
        rng, trust = random.Random(seed), Trust(max_fooled=0.1)
        for _ in range(200):
            trust = trust.after([rng.random() < fooled])
            if not trust.holds:
                return True
        return False

    assert least <= sum(map(loses, range(300))) / 300 <= most


def test_a_judge_that_must_never_be_fooled_is_not_trusted_after_the_first() -> None:
    assert Trust(max_fooled=0.0).after([False] * 5).holds
    assert not Trust(max_fooled=0.0).after([False] * 5 + [True]).holds


def test_trust_is_won_back_by_those_since_its_loss() -> None:
    lost = Trust(max_fooled=0.1).after([True] * 3)
    assert not lost.holds
    assert lost.fooled == ()
    assert not lost.after([False] * (MIN_PLANTED - 1)).holds, "too few to say"
    assert lost.after([False] * MIN_PLANTED).holds, "those before it do not count"
    assert lost.after([True] * 2 + [False] * 18).holds
    assert not lost.after([True] * 3 + [False] * 18).holds, "3 of 21 is more than a tenth"
    assert lost.after([True] * 3 + [False] * 27).holds
    assert not lost.after([True] * WINDOW + [False] * (WINDOW - 6)).holds
    assert lost.after([True] * WINDOW + [False] * (WINDOW - 5)).holds, "the last ones count"
    again = lost.after([False] * MIN_PLANTED).after([True] * 12)
    assert not again.holds
