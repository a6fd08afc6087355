"""Bootstrap intervals against exact enumeration, a slow reference, and their promise under the null."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.report import Interval
from tao_daemon.evaluation import statistics as ours
from tao_daemon.evaluation.statistics import BootstrapIntervals, bootstrap_mean


def bootstrap(
    values: list[float], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 7
) -> BootstrapIntervals:
    return bootstrap_mean(values, support=(-1.0, 1.0), confidence=confidence, resamples=resamples, seed=seed)


def slow_reference(values: list[float], resamples: int, confidence: float) -> tuple[Interval, Interval]:
    """Both intervals straight from the definition, with another generator and no vectors."""
    draw = random.Random(3)
    n, mean, error = len(values), statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    means, ts = [], []
    for _ in range(resamples):
        sample = draw.choices(values, k=n)
        means.append(statistics.fmean(sample))
        own = statistics.stdev(sample) / n**0.5
        deviation = means[-1] - mean
        ts.append(deviation / own if own > 1e-12 else math.copysign(math.inf, deviation) if deviation else 0.0)
    means.sort(), ts.sort()
    low, high = int((1 - confidence) / 2 * resamples), int((1 + confidence) / 2 * resamples) - 1
    return Interval(means[low], means[high]), Interval(mean - ts[high] * error, mean - ts[low] * error)


@pytest.mark.parametrize("shape", ["symmetric", "skewed", "mostly ties"])
def test_both_intervals_agree_with_a_slow_reference(shape: str) -> None:
    draw = np.random.default_rng(1)
    values = {
        "symmetric": draw.uniform(-0.6, 0.8, 40),
        "skewed": np.where(draw.random(40) < 0.15, -0.9, 0.2 + draw.normal(0, 0.02, 40)),
        "mostly ties": np.where(draw.random(40) < 0.3, 0.5, 0.0),
    }[shape].tolist()
    percentile, studentised = slow_reference(values, 6000, 0.9)
    found = bootstrap(values, resamples=20_000, confidence=0.9)
    for got, expected in ((found.percentile, percentile), (found.studentised, studentised)):
        assert got.low == pytest.approx(expected.low, abs=0.02)
        assert got.high == pytest.approx(expected.high, abs=0.02)


def test_the_percentile_interval_agrees_with_full_enumeration() -> None:
    values = [-0.31, -0.02, 0.17, 0.44, 0.83]
    means = np.array([statistics.fmean(draw) for draw in itertools.product(values, repeat=5)])
    low, high = np.quantile(means, [0.05, 0.95])
    found = bootstrap(values, resamples=40_000, confidence=0.9).percentile
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).uniform(-1, 1, 50).tolist()
    whole = bootstrap(values)
    monkeypatch.setattr(ours, "_CHUNK_VALUES", 50 * 300)
    assert bootstrap(values) == whole


def test_a_seed_fixes_the_result_and_another_one_changes_it() -> None:
    values = np.random.default_rng(2).uniform(-1, 1, 50).tolist()
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=8)


def test_degenerate_samples_are_defined() -> None:
    assert bootstrap([0.3] * 20) == BootstrapIntervals(pytest.approx(0.3), *[Interval(*[pytest.approx(0.3)] * 2)] * 2)
    assert bootstrap([0.3]) == BootstrapIntervals(0.3, Interval(-1.0, 1.0), Interval(-1.0, 1.0))
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_two_values_say_next_to_nothing() -> None:
    """Half of all resamples have no spread: their t is infinite, so the studentised bound is the support's."""
    assert bootstrap([0.1, 0.4]).studentised == Interval(-1.0, 1.0)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_bounds_are_ordered_finite_and_within_the_support(values: list[float]) -> None:
    found = bootstrap(values, resamples=300)
    for interval in (found.percentile, found.studentised):
        assert -1.0 <= interval.low <= interval.high <= 1.0
        assert interval.low <= found.mean + 1e-9
        assert interval.high >= found.mean - 1e-9


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_mirrored_sample_has_the_mirrored_interval(values: list[float]) -> None:
    found, mirrored = bootstrap(values, resamples=300), bootstrap([-v for v in values], resamples=300)
    assert mirrored.percentile.low == pytest.approx(-found.percentile.high, abs=1e-9)
    assert mirrored.studentised.low == pytest.approx(-found.studentised.high, abs=1e-9)


def null_rates(draws: list[np.ndarray]) -> tuple[float, float]:
    """How often a candidate that is no better passes: by the percentile alone, and by both."""
    found = [bootstrap(draw.tolist(), resamples=400, seed=seed) for seed, draw in enumerate(draws)]
    percentile = [f.percentile.low > 0 for f in found]
    both = [f.percentile.low > 0 and f.studentised.low > 0 for f in found]
    return statistics.fmean(percentile), statistics.fmean(both)


def test_at_most_one_null_gate_in_twenty_passes() -> None:
    draw = np.random.default_rng(0)
    draws = [draw.choice([-1.0, -0.4, 0.0, 0.0, 0.0, 0.4, 1.0], size=100) for _ in range(2000)]
    _, both = null_rates(draws)
    assert both <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_rare_losses_fool_the_percentile_and_not_the_pair() -> None:
    """A mean of 0 made of many small gains and a loss in 20: the reason for asking both bootstraps.
    One side of a 95 % interval should be wrong once in 40."""
    draw = np.random.default_rng(0)
    gain = 0.05 / 0.95
    draws = [np.where(draw.random(100) < 0.05, -1.0, gain + draw.normal(0, 0.02, 100)) for _ in range(1000)]
    percentile, both = null_rates(draws)
    assert percentile > 0.04
    assert both < 0.025
