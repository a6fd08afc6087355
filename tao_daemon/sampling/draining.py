"""How fast a server's queue drains, when to look at it again, and what may enter until then. Pure.

A look costs the server time, so looks are few: while the queue is long they come when it should be short enough, and
one look lets in what the server will have taken by the next.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0
SHORTEST_PAUSE_SECONDS = 0.05
_SHARE = 0.2
"""Of the time that a server may spend on being looked at."""
_WINDOW_SECONDS = 1.0
"""A rate is taken over so long at least: a server's figures lag behind by a step of its engine."""


@dataclass(slots=True)
class Drain:
    """The rate at which completions leave a queue, from looks at its length. A lower bound where it runs empty."""

    per_second: float = 0.0
    _since: float | None = None
    _left: float = 0.0

    def saw(self, at: float, left: float) -> None:
        """At a look: `left` the queue since the last one (negative when others came)."""
        if self._since is None:
            self._since, self._left = at, 0.0
            return
        self._left += left
        if at - self._since >= _WINDOW_SECONDS:
            self.per_second = max(0.0, self._left / (at - self._since))
            self._since, self._left = at, 0.0


def pause_until_room(excess: int, drained_per_second: float, last_pause: float) -> float:
    """Seconds until half of the `excess` over the limit is gone at the rate seen; twice the last pause when none is."""
    pause = 0.5 * excess / drained_per_second if drained_per_second > 0.0 else 2.0 * last_pause
    return min(max(pause, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def pause_between_looks(look_seconds: float) -> float:
    """Least seconds from one look to the next, when one took `look_seconds`."""
    return min(max(look_seconds / _SHARE - look_seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def allowance(max_waiting: int, drained_per_second: float, look_seconds: float) -> float:
    """Completions that may wait right after a look, so that `max_waiting` of them do at the next."""
    return max_waiting + drained_per_second * (pause_between_looks(look_seconds) + look_seconds)
