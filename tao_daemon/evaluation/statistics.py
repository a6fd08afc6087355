"""Bootstrap intervals of a mean of bounded values. Deterministic for a seed.

    percentile     [q(α/2), q(1 − α/2)] of the resampled means
    studentised    [m − q(1 − α/2)·s, m − q(α/2)·s] with q of t* = (m* − m) / max(s*, c·s), c = 1/(log(2/α) − 1)

m and s are the mean and its standard error, m* and s* those of a resample (Efron & Tibshirani 1993, ch. 12–13;
Hesterberg 2015). The percentile interval is too narrow for skewed data: it passes a mean that owes its sign to a rare
catastrophe not being resampled. The studentised one widens on that side. Two changes make it hold where nearly all
values are equal, and the resamples with them:

- For each of its bounds the sample has one more value, the end of the support on that side. 48 pairs may well miss a
  loss of 1 in 20, and no resampling of what was seen can tell.
- s* is at least c·s. Resamples of equal values have no spread; their t* would be infinite, and with 31 of 32 values
  equal they are a third of all: nothing would ever be concluded. With this c, a loss that n values did not show
  counts log(2/α) = 3.7 times, as in the exact bound on its rate p, (1 − p)ⁿ = α/2.

At a true mean of 0 both lower bounds are above 0 in at most 2.5 % (nominal: 2.5 %), in simulations of noise, sparse ±1
and catastrophes of every rate at n = 32 to 400. Without the added value: up to 39 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tao_daemon.domain.report import Interval

Vector = NDArray[np.float64]

_CHUNK_VALUES = 1_000_000
"""Resampled values in memory at once: some 25 MB."""
_ZERO = 1e-12


@dataclass(frozen=True, slots=True)
class BootstrapIntervals:
    mean: float
    percentile: Interval
    studentised: Interval


def bootstrap_mean(
    values: Sequence[float],
    *,
    support: tuple[float, float],
    confidence: float,
    resamples: int,
    seed: int,
) -> BootstrapIntervals:
    """Two-sided intervals of the mean of `values`, which lie in `support`; no bound leaves it.

    One value: both are the whole support, nothing is known. Raises ValueError without values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean of no values has no interval; judge at least one pair")
    mean = float(sample.mean())
    if sample.size == 1:
        return BootstrapIntervals(mean, Interval(*support), Interval(*support))
    means, _ = _resampled(sample, resamples, seed)
    tail = (1.0 - confidence) / 2.0
    low, high = (float(bound) for bound in np.quantile(means, (tail, 1.0 - tail)))
    surely = [_studentised_bound(sample, end, tail, resamples, seed) for end in support]
    return BootstrapIntervals(mean, _within(low, high, support), _within(min(surely), max(surely), support))


def ratio_of_means(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float, resamples: int, seed: int
) -> tuple[float, Interval]:
    """Mean of the first over mean of the second, which pair up, with its percentile interval over resampled pairs.

    The denominators must be above 0. Raises ValueError without pairs.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.size == 0:
        raise ValueError("a ratio of no values has no interval; judge at least one pair")
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK_VALUES // above.size)
    ratios = []
    for start in range(0, resamples, rows):
        drawn = random.integers(0, above.size, size=(min(rows, resamples - start), above.size))
        ratios.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    tail = (1.0 - confidence) / 2.0
    low, high = (float(bound) for bound in np.quantile(np.concatenate(ratios), (tail, 1.0 - tail)))
    return float(above.mean() / below.mean()), Interval(low, high)


def _studentised_bound(sample: Vector, end: float, tail: float, resamples: int, seed: int) -> float:
    """The bound on the side of `end`, one end of the support."""
    below = end < sample.mean()
    seen = np.append(sample, end)
    mean, error = float(seen.mean()), float(seen.std(ddof=1) / seen.size**0.5)
    if error < _ZERO:
        return end
    means, errors = _resampled(seen, resamples, seed)
    t = (means - mean) / np.maximum(errors, error / max(1.0, -math.log(tail) - 1.0))
    # The quantile's place is rounded outwards: the interval is never narrower for it.
    place = math.ceil((1.0 - tail) * (resamples - 1)) if below else math.floor(tail * (resamples - 1))
    return mean - float(np.partition(t, place)[place]) * error


def _resampled(sample: Vector, resamples: int, seed: int) -> tuple[Vector, Vector]:
    """Mean and standard error of each resample, shapes (resamples,)."""
    means, errors = [], []
    for draws in _draws(sample, resamples, seed):
        means.append(draws.mean(axis=1))
        errors.append(draws.std(axis=1, ddof=1) / sample.size**0.5)
    return np.concatenate(means), np.concatenate(errors)


def _draws(sample: Vector, resamples: int, seed: int) -> Iterator[Vector]:
    """Chunks of resamples, shapes (some, n)."""
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK_VALUES // sample.size)
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), sample.size)
        yield sample[random.integers(0, sample.size, size=shape)]


def _within(low: float, high: float, support: tuple[float, float]) -> Interval:
    least, most = support
    return Interval(min(max(low, least), most), min(max(high, least), most))
