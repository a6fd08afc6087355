"""Bootstrap intervals against exact enumeration, a slow reference, and their promise under the null."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable

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
    low, high = int((1 - confidence) / 2 * resamples), int((1 + confidence) / 2 * resamples) - 1
    means = sorted(statistics.fmean(draw.choices(values, k=len(values))) for _ in range(resamples))
    bounds = []
    for end, place in ((-1.0, high), (1.0, low)):
        seen = [*values, end]
        n, mean, error = len(seen), statistics.fmean(seen), statistics.stdev(seen) / len(seen) ** 0.5
        ts = []
        for _ in range(resamples):
            sample = draw.choices(seen, k=n)
            own = max(statistics.stdev(sample) / n**0.5, error / (math.log(2 / (1 - confidence)) - 1))
            ts.append((statistics.fmean(sample) - mean) / own)
        bounds.append(mean - sorted(ts)[place] * error)
    return Interval(means[low], means[high]), Interval(*bounds)


@pytest.mark.parametrize("shape", ["symmetric", "skewed", "mostly ties"])
def test_both_intervals_agree_with_a_slow_reference(shape: str) -> None:
    draw = np.random.default_rng(1)
    values = {
        "symmetric": draw.uniform(-0.6, 0.8, 40),
        "skewed": np.where(draw.random(40) < 0.15, -0.9, 0.2 + draw.normal(0, 0.02, 40)),
        "mostly ties": np.where(draw.random(40) < 0.3, 0.5, 0.0),
    }[shape].tolist()
    percentile, studentised = slow_reference(values, 5000, 0.9)
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
    assert bootstrap([0.3]) == BootstrapIntervals(0.3, Interval(-1.0, 1.0), Interval(-1.0, 1.0))
    assert bootstrap([0.25] * 20).percentile == Interval(0.25, 0.25)
    assert bootstrap([1.0] * 20).studentised.high == 1.0
    assert bootstrap([-1.0] * 20).studentised.low == -1.0
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_two_values_say_next_to_nothing() -> None:
    assert bootstrap([0.1, 0.4]).studentised == Interval(-1.0, 1.0)


@pytest.mark.parametrize(
    ("wins", "ties", "losses"),
    [(31, 1, 0), (47, 1, 0), (48, 0, 0), (20, 4, 0), (30, 2, 0), (199, 1, 0), (31, 0, 1), (12, 20, 0), (10, 190, 0)],
)
def test_a_gain_on_nearly_every_pair_is_sure(wins: int, ties: int, losses: int) -> None:
    """Many resamples of such samples have no spread: their t* would be infinite, and nothing ever concluded."""
    found = bootstrap([1.0] * wins + [0.0] * ties + [-1.0] * losses)
    assert found.percentile.low > 0
    assert 0 < found.studentised.low < found.mean


@pytest.mark.parametrize(("gain", "count"), [(0.05, 75), (0.1, 39), (0.3, 15)])
def test_equal_gains_are_sure_where_a_loss_that_outweighs_them_would_have_been_seen(gain: float, count: int) -> None:
    """The exact bound: a loss that occurs with p is missed by n pairs with (1 − p)ⁿ, 2.5 % at most."""
    outweighs = gain / (1.0 + gain)
    assert (1.0 - outweighs) ** count < 0.03
    assert bootstrap([gain] * (count * 8 // 10)).studentised.low < 0
    assert bootstrap([gain] * (count * 12 // 10)).studentised.low > 0


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


def null_rates(draws: Iterable[np.ndarray]) -> tuple[float, float]:
    """How often a candidate that is no better passes: by the percentile alone, and by both."""
    found = [bootstrap(draw.tolist(), resamples=400, seed=seed) for seed, draw in enumerate(draws)]
    percentile = [f.percentile.low > 0 for f in found]
    both = [f.percentile.low > 0 and f.studentised.low > 0 for f in found]
    return statistics.fmean(percentile), statistics.fmean(both)


def catastrophes(gain: float, noise: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """A mean of 0 made of many small gains and a few losses of everything."""

    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        lost = random.random(n) < gain / (1.0 + gain)
        return np.where(lost, -1.0, gain + random.normal(0, noise, n))

    return draw


NULLS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "noise": lambda random, n: np.clip(random.normal(0, 0.3, n), -1, 1),
    "wins, ties and losses": lambda random, n: random.choice([-1.0, 0.0, 1.0], n),
    "mostly ties": lambda random, n: random.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.8, 0.1]),
    "equal gains of 0.05": catastrophes(0.05, 0.0),
    "gains of about 0.02": catastrophes(0.02, 0.01),
    "gains of about 0.05": catastrophes(0.05, 0.02),
    "gains of about 0.2": catastrophes(0.2, 0.05),
    "rare wins": lambda random, n: -catastrophes(0.05, 0.02)(random, n),
}


@pytest.mark.parametrize("n", [48, 200])
@pytest.mark.parametrize("null", NULLS)
def test_a_candidate_that_is_no_better_seldom_passes(null: str, n: int) -> None:
    """One side of a 95 % interval should be wrong once in 40; three standard errors of slack."""
    runs, random = 300, np.random.default_rng(0)
    _, both = null_rates(NULLS[null](random, n) for _ in range(runs))
    assert both <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5


def test_rare_losses_fool_the_percentile_and_not_the_pair() -> None:
    """The reason for asking both bootstraps, and for adding what was not seen."""
    random = np.random.default_rng(0)
    percentile, both = null_rates(NULLS["gains of about 0.05"](random, 100) for _ in range(600))
    assert percentile > 0.035
    assert both < 0.01
