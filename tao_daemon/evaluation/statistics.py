"""Bootstrap intervals of a mean. Deterministic for a seed.

Both intervals come from the same resamples (Efron & Tibshirani 1993, ch. 12–13; Hesterberg 2015):

    percentile     [q(α/2), q(1 − α/2)] of the resampled means
    studentised    [m − q(1 − α/2)·s, m − q(α/2)·s] with q of t* = (m* − m)/s*

m and s are the mean and its standard error. The percentile interval is too narrow for skewed data: it passes a
mean that owes its sign to a rare catastrophe not being resampled. The studentised one widens on that side.
"""

from __future__ import annotations

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

    All values equal: both intervals are that point. One value: both are the whole support, nothing is known.
    Raises ValueError without values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean of no values has no interval; judge at least one pair")
    mean = float(sample.mean())
    if sample.size == 1:
        return BootstrapIntervals(mean, Interval(*support), Interval(*support))
    if np.ptp(sample) < _ZERO:
        return BootstrapIntervals(mean, Interval(mean, mean), Interval(mean, mean))
    means, errors = _resampled(sample, resamples, seed)
    tails = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    low, high = np.quantile(means, tails)
    t_low, t_high = _quantiles_of_t(means - mean, errors, tails)
    error = float(sample.std(ddof=1)) / sample.size**0.5
    studentised = _within(mean - t_high * error, mean - t_low * error, support)
    return BootstrapIntervals(mean, _within(float(low), float(high), support), studentised)


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


def _quantiles_of_t(deviations: Vector, errors: Vector, tails: Sequence[float]) -> tuple[float, float]:
    """Quantiles of deviation / error. A resample of equal values has no error: its t is 0 or infinite, and the
    quantile is taken without interpolation so that infinities stay what they are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(errors > _ZERO, deviations / errors, np.copysign(np.inf, deviations))
    t[(errors <= _ZERO) & (np.abs(deviations) <= _ZERO)] = 0.0
    low, high = np.sort(t)[_places(t.size, tails)]
    return float(low), float(high)


def _places(size: int, tails: Sequence[float]) -> list[int]:
    """Positions of the quantiles among sorted values, rounded outwards: the interval is never narrower."""
    low, high = tails
    return [int(np.floor(low * (size - 1))), int(np.ceil(high * (size - 1)))]


def _within(low: float, high: float, support: tuple[float, float]) -> Interval:
    least, most = support
    return Interval(min(max(low, least), most), min(max(high, least), most))
