"""The gate's verdicts, their reasons, and their numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.report import Decision, Pair, Verdict
from tao_daemon.evaluation.gate import Limits, judge, too_few

LIMITS = Limits(
    min_prompts=50,
    confidence=0.95,
    resamples=1000,
    min_differing_pairs=10,
    max_length_ratio=1.2,
    max_truncation_increase=0.02,
)


def pair(number: int, before: float, after: float, **changes: object) -> Pair:
    return replace(Pair(f"p{number}", before, after, 20, 20, False, False), **changes)


def pairs_of(differences: list[float]) -> list[Pair]:
    return [pair(n, 0.5 - d / 2, 0.5 + d / 2) for n, d in enumerate(differences)]


def better(count: int = 64) -> list[Pair]:
    draw = np.random.default_rng(0)
    return [pair(n, float(draw.uniform(0.2, 0.5)), float(draw.uniform(0.6, 0.95))) for n in range(count)]


def decide(pairs: list[Pair], limits: Limits = LIMITS, available: int | None = None) -> Verdict:
    return judge(pairs, limits, available=len(pairs) if available is None else available, seed=1)


def test_a_clear_gain_passes_and_says_by_how_much() -> None:
    verdict = decide(better())
    numbers = verdict.numbers
    assert verdict.decision is Decision.PASS
    assert verdict.reasons[0] == (
        f"gain {numbers['difference']:+.2f} "
        f"[{numbers['difference_low']:+.2f}, {numbers['difference_high']:+.2f}] over 64 pairs"
    )
    assert "64 pairs, fewer than the 200 recommended for a verifier" in verdict.reasons
    assert numbers["difference"] == pytest.approx(numbers["candidate_score"] - numbers["incumbent_score"])
    assert 0 < numbers["studentised_low"] < numbers["difference"]
    assert numbers["differing_pairs"] == numbers["pairs"] == numbers["available"] == 64


def test_with_enough_pairs_the_small_number_is_not_remarked_on() -> None:
    assert not any("recommended" in reason for reason in decide(better(200)).reasons)


def test_every_promised_number_is_there_and_goes_into_json() -> None:
    promised = {
        "incumbent_score", "candidate_score", "difference", "difference_low", "difference_high",
        "studentised_low", "pairs", "differing_pairs", "length_ratio", "truncation_increase",
        "incumbent_score_low", "incumbent_score_high", "candidate_score_low", "candidate_score_high",
    }  # fmt: skip
    numbers = dict(decide(better()).numbers)
    assert promised <= set(numbers)
    assert all(math.isfinite(value) for value in json.loads(json.dumps(numbers)).values())
    assert numbers["incumbent_score_low"] < numbers["incumbent_score"] < numbers["incumbent_score_high"]


def test_a_worse_candidate_fails() -> None:
    swapped = [replace(p, incumbent_score=p.candidate_score, candidate_score=p.incumbent_score) for p in better()]
    verdict = decide(swapped)
    assert verdict.decision is Decision.FAIL
    assert verdict.reasons[0].startswith("worse: gain -0.")


def test_no_difference_is_inconclusive() -> None:
    verdict = decide(pairs_of([0.0] * 64))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reasons[0] == "no sure gain: +0.00 [+0.00, +0.00] over 64 pairs"
    assert verdict.reasons[1] == "only 0 pairs differ, 10 needed"


def test_a_gain_on_too_few_pairs_is_inconclusive() -> None:
    verdict = decide(pairs_of([1.0] * 9 + [0.0] * 55))
    assert verdict.numbers["difference_low"] > 0
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "only 9 pairs differ, 10 needed" in verdict.reasons


@pytest.mark.parametrize("wins", [24, 44, 60, 63, 64])
def test_a_candidate_that_is_right_where_the_incumbent_never_is_passes(wins: int) -> None:
    verdict = decide(pairs_of([1.0] * wins + [0.0] * (64 - wins)))
    assert verdict.decision is Decision.PASS


def test_the_same_small_gain_on_every_pair_could_hide_a_rare_loss() -> None:
    verdict = decide(pairs_of([0.05] * 64))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "rare losses could outweigh it" in verdict.reasons[0]
    assert decide(pairs_of([0.05] * 200)).decision is Decision.PASS


def test_a_gain_that_only_the_percentile_sees_is_inconclusive() -> None:
    draw = np.random.default_rng(4)
    verdict = decide(pairs_of([-1.0, *(0.035 + draw.normal(0, 0.01, 99)).tolist()]))
    assert verdict.numbers["difference_low"] > 0 >= verdict.numbers["studentised_low"]
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "but studentised" in verdict.reasons[0]


def test_a_gain_bought_with_length_fails() -> None:
    longer = [replace(p, candidate_tokens=25) for p in better()]
    verdict = decide(longer)
    assert verdict.decision is Decision.FAIL
    assert verdict.reasons[0].startswith("gain +")
    assert verdict.reasons[1] == "length ratio 1.25 exceeds 1.20"
    assert decide([replace(p, candidate_tokens=24) for p in better()]).decision is Decision.PASS


def test_a_gain_with_more_truncation_fails() -> None:
    cut = [replace(p, candidate_truncated=n < 2) for n, p in enumerate(better())]
    verdict = decide(cut)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "truncation increase 0.03 exceeds 0.02, perhaps by chance (at least 0.00)" in verdict.reasons
    many = [replace(p, candidate_truncated=n < 12) for n, p in enumerate(better())]
    assert decide(many).decision is Decision.FAIL
    assert "truncation increase 0.19 exceeds 0.02" in decide(many).reasons
    both = [replace(p, candidate_truncated=n < 2, incumbent_truncated=n < 2) for n, p in enumerate(better())]
    assert decide(both).decision is Decision.PASS


def test_too_few_prompts_are_inconclusive_whatever_the_scores() -> None:
    verdict = decide(better(49))
    assert verdict == too_few(49, LIMITS)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reasons[0].startswith("49 held-out prompts, fewer than gate.min_prompts (50)")
    assert too_few(50, LIMITS) is None


def test_too_many_prompts_without_scores_are_inconclusive() -> None:
    assert decide(better(58), available=64).decision is Decision.PASS
    assert "6 prompts left out: not answered or not scored" in decide(better(58), available=64).reasons
    verdict = decide(better(57), available=64)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "7 of 64 prompts could not be answered or scored" in verdict.summary
    assert decide([], available=64).decision is Decision.INCONCLUSIVE


def test_an_incumbent_that_says_nothing_has_a_length_of_one() -> None:
    verdict = decide([replace(p, incumbent_tokens=0, candidate_tokens=1) for p in better()])
    assert verdict.numbers["length_ratio"] == 1.0


PAIRS = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 99), st.integers(0, 99), st.booleans(), st.booleans()),
    min_size=50,
    max_size=70,
)


@given(PAIRS)
@settings(max_examples=40, deadline=None)
def test_a_pass_meets_every_criterion_and_every_verdict_has_its_reasons(rows: list[tuple]) -> None:  # type: ignore[type-arg]
    verdict = decide([Pair(f"p{n}", *row) for n, row in enumerate(rows)])
    numbers = verdict.numbers
    guards = numbers["length_ratio"] <= 1.2 and numbers["truncation_increase"] <= 0.02
    gained = numbers["difference_low"] > 0 and numbers["studentised_low"] > 0 and numbers["differing_pairs"] >= 10
    assert (verdict.decision is Decision.PASS) == (guards and gained)
    broken = (numbers["length_ratio"] > 1.2 and numbers["length_ratio_low"] > 1.2) or (
        numbers["truncation_increase"] > 0.02 and numbers["truncation_increase_low"] > 0.02
    )
    assert (verdict.decision is Decision.FAIL) == (broken or numbers["difference_high"] < 0)
    assert len(verdict.reasons) >= 4
    assert all(math.isfinite(value) for value in numbers.values())
