"""Several scorers of one group become one reward per completion.

One scorer: its raw scores. Several: each is ranked within the group to [0, 1], so that no scorer's scale
outweighs another's, then weighed. A scorer that hardly tells the group apart (raw spread below `min_spread`)
gives everyone 0.5: ranks would blow noise up to the full range.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def within_group(scores: Sequence[Sequence[float]], weights: Sequence[float], *, min_spread: float) -> list[float]:
    """Rewards in [0, 1] for training. `scores[s][i]` is scorer s's score in [0, 1] of completion i."""
    if len(scores) == 1:
        return [float(score) for score in scores[0]]
    return _mean([ranks(row, min_spread=min_spread) for row in scores], weights)


def absolute(scores: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """The weighted mean of raw scores, for evaluation: comparable between prompts and between models."""
    return _mean(scores, weights)


def ranks(scores: Sequence[float], *, min_spread: float) -> list[float]:
    """Ranks within the group from 0 (lowest) to 1 (highest), ties averaged; 0.5 each without enough spread."""
    row = np.asarray(scores, dtype=np.float64)
    if row.size < 2 or float(np.ptp(row)) < max(min_spread, sys.float_info.min):
        return [0.5] * int(row.size)
    ordered = np.sort(row)
    below: NDArray[np.intp] = np.searchsorted(ordered, row, side="left")
    not_above: NDArray[np.intp] = np.searchsorted(ordered, row, side="right")
    return [float(rank) for rank in (below + not_above - 1) / 2 / (row.size - 1)]


def _mean(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    table, share = np.asarray(rows, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    return [float(reward) for reward in np.clip(share @ table / share.sum(), 0.0, 1.0)]
