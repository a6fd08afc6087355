"""E-processes: fair under their null hypothesis, exact against another arithmetic, quick to see what is there."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.rollout import ShadowPair, ShadowTally
from tao_daemon.rollout import eprocess
from tao_daemon.rollout.eprocess import (
    not_inferior_evidence,
    observe,
    rate_evidence,
    risk_evidence,
    worse_evidence,
)

MARGIN = 0.1
DIFFERENCES = st.lists(st.floats(-1, 1), max_size=40)


def pairs(differences: Sequence[float]) -> list[ShadowPair]:
    return [ShadowPair(f"p{n}", difference) for n, difference in enumerate(differences)]


def tally_of(differences: Sequence[float], margin: float = MARGIN) -> ShadowTally:
    return observe(ShadowTally(), pairs(differences), 0, margin)


def reached(evidence: Callable[[ShadowTally], float], threshold: float, differences: Iterator[float]) -> int | None:
    """After how many pairs the evidence reaches the threshold, looked at after every one."""
    tally = ShadowTally()
    for count, difference in enumerate(differences, 1):
        tally = observe(tally, pairs([difference]), 0, MARGIN)
        if evidence(tally) >= threshold:
            return count
    return None


# --- bookkeeping


def test_an_empty_tally_is_no_evidence() -> None:
    assert worse_evidence(ShadowTally()) == not_inferior_evidence(ShadowTally()) == 1.0
    skipped = observe(ShadowTally(), [], 3, MARGIN)
    assert (skipped.pairs, skipped.skipped) == (0, 3)
    assert worse_evidence(skipped) == not_inferior_evidence(skipped) == 1.0


def test_everything_is_counted() -> None:
    first = observe(ShadowTally(), [ShadowPair("a", -1.0, candidate_failed=True), ShadowPair("b", 0.25)], 1, MARGIN)
    second = observe(first, [ShadowPair("c", 0.5)], 2, MARGIN)
    assert (second.pairs, second.total, second.candidate_failures, second.skipped) == (3, -0.25, 1, 3)


@pytest.mark.parametrize("difference", [math.nan, math.inf, -1.01, 1.01])
def test_a_difference_that_cannot_be_is_refused(difference: float) -> None:
    with pytest.raises(ValueError, match=r"prompt p1 is not in \[-1, 1\]"):
        tally_of([0.0, difference])


def test_other_impossible_arguments_are_refused() -> None:
    for margin in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="margin"):
            observe(ShadowTally(), [], 0, margin)
    with pytest.raises(ValueError, match="skipped"):
        observe(ShadowTally(), [], -1, MARGIN)
    for step in ((2, 1, 0.5), (-1, 1, 0.5), (0, 1, 1.5), (0, 1, math.nan)):
        with pytest.raises(ValueError, match="cannot be"):
            risk_evidence([step], 1.25)
    for risk in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="relative risk"):
            risk_evidence([], risk)
    for limit in (0.0, 1.0):
        with pytest.raises(ValueError, match="limit"):
            rate_evidence(1, 2, limit)
    with pytest.raises(ValueError, match="cannot be"):
        rate_evidence(3, 2, 0.5)


@given(DIFFERENCES, st.integers(0, 40))
@settings(deadline=None)
def test_batches_change_nothing(differences: list[float], cut: int) -> None:
    whole = tally_of(differences)
    parts = observe(tally_of(differences[:cut]), pairs(differences[cut:]), 0, MARGIN)
    assert parts.worse == pytest.approx(whole.worse, abs=1e-9)
    assert parts.not_inferior == pytest.approx(whole.not_inferior, abs=1e-9)
    assert parts.total == pytest.approx(whole.total, abs=1e-9)


def test_wealth_of_another_grid_is_kept_in_sum() -> None:
    """A tally written by a version with other bets goes on with the wealth it had."""
    old = replace(tally_of([-0.4] * 20), worse=(math.log(3.0), math.log(5.0)))
    assert worse_evidence(observe(old, [], 0, MARGIN)) == pytest.approx(4.0)


def test_a_hundred_thousand_pairs_overflow_nothing() -> None:
    better, worse = ShadowTally(), ShadowTally()
    for _ in range(10):
        better, worse = observe(better, pairs([1.0] * 1000), 0, MARGIN), observe(worse, pairs([-1.0] * 1000), 0, MARGIN)
    better = replace(better, worse=tuple(10 * log for log in better.worse))
    worse = replace(worse, worse=tuple(10 * log for log in worse.worse))
    assert worse_evidence(worse) == not_inferior_evidence(better) == math.exp(700)
    assert worse_evidence(better) < 1e-30
    assert not_inferior_evidence(worse) < 1e-30
    assert rate_evidence(100_000, 100_000, 0.05) == math.exp(700)
    assert rate_evidence(0, 100_000, 0.05) < 1e-30
    assert math.isfinite(risk_evidence([(100_000, 100_000, 0.05)] * 3, 1.25))
    assert risk_evidence([(0, 100_000, 0.05)], 1.25) == 0.5


# --- against another arithmetic


@given(DIFFERENCES, st.sampled_from([0.03, 0.1, 0.5]))
@settings(max_examples=50, deadline=None)
def test_evidence_from_differences_is_the_mean_of_the_products(differences: list[float], margin: float) -> None:
    with localcontext() as context:
        context.prec = 50
        worse, not_inferior = [], []
        for bet in eprocess._BETS:
            product, other = Decimal(1), Decimal(1)
            for d in map(Decimal, differences):
                product *= 1 - Decimal(bet) * d
                other *= 1 + Decimal(bet) / (1 - Decimal(margin)) * (d + Decimal(margin))
            worse.append(product)
            not_inferior.append(other)
        tally = tally_of(differences, margin)
        assert worse_evidence(tally) == pytest.approx(float(sum(worse) / len(worse)), rel=1e-9)
        assert not_inferior_evidence(tally) == pytest.approx(float(sum(not_inferior) / len(not_inferior)), rel=1e-9)


STEP = st.tuples(st.integers(0, 30), st.integers(0, 60), st.sampled_from([0.0, 0.001, 0.05, 0.25, 0.5, 0.9, 1.0])).map(
    lambda step: (step[0], step[0] + step[1], step[2])
)


@given(st.lists(STEP, max_size=4), st.sampled_from([1.0, 1.25, 2.0]))
@settings(max_examples=100, deadline=None)
def test_evidence_from_failures_is_the_mean_likelihood_ratio(
    steps: list[tuple[int, int, float]], relative_risk: float
) -> None:
    with localcontext() as context:
        context.prec = 50

        def ratio(multiple: Decimal, candidate: int, both: int, share: float) -> Decimal:
            f, r = Decimal(share), Decimal(relative_risk)
            q_0, q_j = r * f / (r * f + 1 - f), multiple * r * f / (multiple * r * f + 1 - f)
            return (q_j / q_0) ** candidate * ((1 - q_j) / (1 - q_0)) ** (both - candidate)

        compared = [step for step in steps if 0 < step[2] < 1]
        total = Decimal(1) / (len(compared) + 1)
        for s in range(1, len(compared) + 1):
            products = [
                math.prod((ratio(Decimal(m), *step) for step in compared[s - 1 :]), start=Decimal(1))
                for m in eprocess._RISKS
            ]
            total += sum(products, Decimal(0)) / len(products) / (s * (s + 1))
        assert risk_evidence(steps, relative_risk) == pytest.approx(float(total), rel=1e-9)


@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from([0.01, 0.05, 0.3]))
@settings(deadline=None)
def test_evidence_from_a_rate_is_the_same_ratio_with_nothing_set_aside(good: int, bad: int, limit: float) -> None:
    rate = rate_evidence(bad, good + bad, limit)
    assert risk_evidence([(bad, good + bad, limit)], 1.0) == pytest.approx(rate / 2 + 0.5, rel=1e-12)


# --- valid under the null


@given(st.floats(-1, 0), st.floats(0, 1), st.integers(1, 5), st.sampled_from([0.03, 0.1, 0.5]))
@settings(max_examples=60, deadline=None)
def test_bets_on_differences_are_fair(low: float, high: float, length: int, margin: float) -> None:
    """Two values with the null's boundary for a mean: the expectation over all sequences is 1, exactly. The factors
    are linear in d, so what is fair for every two values is fair for every distribution with that mean."""
    for shift, evidence in ((0.0, worse_evidence), (-margin, not_inferior_evidence)):
        values = (max(low + shift, -1.0), min(high + shift, 1.0))
        if values[1] - values[0] < 1e-3:
            continue
        chance = (shift - values[0]) / (values[1] - values[0])
        expected = math.fsum(
            math.prod(chance if d == values[1] else 1.0 - chance for d in draw) * evidence(tally_of(draw, margin))
            for draw in itertools.product(values, repeat=length)
        )
        assert expected == pytest.approx(1.0, abs=1e-9)


@given(
    st.sampled_from([0.01, 0.05, 0.25, 0.5, 0.9]),
    st.floats(0, 1),
    st.sampled_from([1.0, 1.25, 3.0]),
    st.integers(1, 25),
)
@settings(max_examples=100, deadline=None)
def test_the_expected_risk_evidence_is_at_most_one_for_every_risk_within_the_limit(
    fraction: float, part: float, limit: float, failures: int
) -> None:
    def expected(risk: float) -> float:
        q = risk * fraction / (risk * fraction + 1.0 - fraction)
        return math.fsum(
            math.comb(failures, k) * q**k * (1 - q) ** (failures - k) * risk_evidence([(k, failures, fraction)], limit)
            for k in range(failures + 1)
        )

    assert expected(limit) == pytest.approx(1.0, abs=1e-9)
    assert expected(limit * part) <= 1.0 + 1e-9


def test_the_expected_risk_evidence_over_several_steps_is_one() -> None:
    """All outcomes of 3 steps of 4 failures each, at the largest allowed risk."""
    shares = (0.05, 0.25, 0.5)
    chances = [1.25 * f / (1.25 * f + 1.0 - f) for f in shares]
    expected = math.fsum(
        math.prod(math.comb(4, k) * q**k * (1 - q) ** (4 - k) for k, q in zip(counts, chances, strict=True))
        * risk_evidence([(k, 4, f) for k, f in zip(counts, shares, strict=True)], 1.25)
        for counts in itertools.product(range(5), repeat=3)
    )
    assert expected == pytest.approx(1.0, abs=1e-9)


def chance_of_ever_reaching(
    evidence: Callable[[int, int], float], threshold: float, chance: float, looks: int
) -> float:
    """Exact, by following the distribution of the count: the probability that coin flips reach the threshold when
    the evidence is looked at after each of them."""
    alive, hit = {0: 1.0}, 0.0
    for n in range(1, looks + 1):
        grown: dict[int, float] = {}
        for k, mass in alive.items():
            grown[k] = grown.get(k, 0.0) + mass * (1.0 - chance)
            grown[k + 1] = grown.get(k + 1, 0.0) + mass * chance
        hit += sum(mass for k, mass in grown.items() if evidence(k, n) >= threshold)
        alive = {k: mass for k, mass in grown.items() if evidence(k, n) < threshold}
    return hit


@pytest.mark.parametrize("fraction", [0.05, 0.25, 0.5])
def test_the_largest_allowed_risk_is_seldom_taken_for_a_regression(fraction: float) -> None:
    q_0 = 1.25 * fraction / (1.25 * fraction + 1.0 - fraction)
    hit = chance_of_ever_reaching(lambda k, n: risk_evidence([(k, n, fraction)], 1.25), 20.0, q_0, 300)
    assert 0.005 < hit <= 0.05  # not only valid: a test that never speaks would be, too


def test_the_largest_allowed_rate_is_seldom_taken_for_too_large_a_one() -> None:
    hit = chance_of_ever_reaching(lambda k, n: rate_evidence(k, n, 0.05), 20.0, 0.05, 300)
    assert 0.005 < hit <= 0.05


def wild(draw: random.Random) -> Iterator[float]:
    """Fair, but each size depends on what came before: larger after a loss."""
    size = 0.1
    while True:
        difference = draw.choice([-size, size])
        yield difference
        size = min(1.0, 2.0 * size) if difference < 0 else 0.1


def iid(values: list[float], weights: list[float]) -> Callable[[random.Random], Iterator[float]]:
    return lambda draw: (draw.choices(values, weights)[0] for _ in itertools.count())


NULLS = {
    "ties, wins and losses": iid([-1.0, 0.0, 1.0], [1, 3, 1]),
    "rare catastrophes": iid([-1.0, 0.05], [1, 20]),
    "rare wins": iid([1.0, -0.05], [1, 20]),
    "sizes that depend on the past": wild,
}


@pytest.mark.parametrize("null", NULLS)
def test_looking_after_every_pair_keeps_the_promise(null: str) -> None:
    """A mean of exactly 0 (or of −margin), stopped at the first sign: at most 1 in 20, with Monte-Carlo slack."""
    draw, runs, length = random.Random(7), 200, 120
    slack = 3 * (0.05 * 0.95 / runs) ** 0.5

    def found(evidence: Callable[[ShadowTally], float], shift: float) -> int:
        hits = 0
        for _ in range(runs):
            fair = itertools.islice(NULLS[null](draw), length)
            # Shrunk a little so that a shifted difference stays in [−1, 1]; the mean is `shift` all the same.
            hits += reached(evidence, 20.0, (d * (1.0 - MARGIN) + shift for d in fair)) is not None
        return hits

    assert found(worse_evidence, 0.0) / runs <= 0.05 + slack
    assert found(not_inferior_evidence, -MARGIN) / runs <= 0.05 + slack


# --- quick to see what is there


def median_pairs(evidence: Callable[[ShadowTally], float], threshold: float, mean: float, spread: float) -> float:
    """Median number of pairs until the threshold; infinite when most of 41 runs of 600 pairs never reach it."""
    draw = random.Random(11)
    counts = []
    for _ in range(41):
        stream = (max(-1.0, min(1.0, draw.gauss(mean, spread))) for _ in range(600))
        counts.append(reached(evidence, threshold, stream) or math.inf)
    return sorted(counts)[20]


def test_a_worse_candidate_is_found() -> None:
    assert median_pairs(worse_evidence, 40.0, -0.2, 0.4) < 100
    assert median_pairs(worse_evidence, 40.0, -0.1, 0.4) < 300
    assert reached(worse_evidence, 40.0, itertools.repeat(-1.0)) == 9
    assert (reached(worse_evidence, 40.0, itertools.repeat(-0.02)) or math.inf) < 400


def test_a_candidate_that_is_no_worse_passes() -> None:
    assert reached(not_inferior_evidence, 20.0, itertools.repeat(0.0)) == 52
    assert median_pairs(not_inferior_evidence, 20.0, 0.0, 0.3) < 150
    assert median_pairs(not_inferior_evidence, 20.0, 0.1, 0.3) < 52


def test_a_candidate_worse_by_more_than_the_margin_does_not_pass() -> None:
    assert reached(not_inferior_evidence, 20.0, itertools.repeat(-0.11, 5000)) is None


def test_a_shared_incident_is_no_regression_and_a_tripled_rate_is() -> None:
    steps = [(50, 1000, 0.05), (250, 1000, 0.25)]
    assert risk_evidence(steps, 1.25) < 1.0
    tripled = 3 * 0.25 / (3 * 0.25 + 0.75)
    assert risk_evidence([(round(tripled * 100), 100, 0.25)], 1.25) > 160
    assert risk_evidence([*steps, (round(tripled * 120), 120, 0.25)], 1.25) > 160


def test_a_step_with_one_arm_alone_says_nothing() -> None:
    steps = [(30, 40, 0.25)]
    assert risk_evidence([*steps, (500, 500, 1.0), (0, 500, 0.0)], 1.25) == risk_evidence(steps, 1.25)


def test_a_rate_above_the_limit_is_found() -> None:
    assert rate_evidence(5, 100, 0.05) < 1.0
    assert rate_evidence(15, 100, 0.05) > 160
    assert rate_evidence(3, 3, 0.05) > 160
