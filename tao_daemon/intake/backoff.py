"""How long to wait before trying again. Pure: the jitter comes from a seed."""

from __future__ import annotations

import random


def backoff_seconds(attempt: int, *, first: float, maximum: float, seed: int) -> float:
    """Doubling from `first` up to `maximum` seconds, then scaled by a factor in [0.5, 1). `attempt` counts from 1."""
    assert attempt >= 1
    full = min(maximum, first * 2.0 ** min(attempt - 1, 60))
    return full * (0.5 + 0.5 * random.Random(f"{seed}:{attempt}").random())
