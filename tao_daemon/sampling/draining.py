"""When to look at a server's queue again. Pure.

A look costs the server time, so looks are rare while the queue is long, and come when it should be short enough.
"""

from __future__ import annotations

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0
SHORTEST_PAUSE_SECONDS = 0.02
_SHARE = 0.2
"""Of the time that a server may spend on being looked at."""


def pause_until_room(excess: int, drained_per_second: float, last_pause: float) -> float:
    """Seconds until half of the `excess` over the limit is gone at the rate seen; twice the last pause when none is."""
    pause = 0.5 * excess / drained_per_second if drained_per_second > 0.0 else 2.0 * last_pause
    return min(max(pause, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def pause_between_looks(look_seconds: float) -> float:
    """Least seconds from one look to the next, when one took `look_seconds`."""
    return min(max(look_seconds / _SHARE - look_seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
