"""How many sampling requests may be in flight, so that live requests on the same servers hardly notice. Pure.

The rule: of the live answers of the last seconds, at most 1 % may take longer than `slowdown` times the 99th percentile
of the time without sampling. Additive increase, multiplicative decrease (Chiu & Jain 1989), as TCP does it. It
begins with a single request; where even that is too much, it holds, each time twice as long as before.

quiet (learns what is usual) → sampling (holds to it) → quiet again after `QUIET_SECONDS` without a request
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tao_daemon.domain.traffic import DURATION_EDGES

INTERVAL_SECONDS = 5.0
"""Between two looks."""
WINDOW_SECONDS = 30.0
"""Live answers that a look judges."""
QUIET_SECONDS = 60.0
LEARNED_SECONDS = 600.0
"""Quiet time that "usual" looks back over; time with sampling, and just after it, is no part of it."""
_MIN_USUAL = 50
"""Live answers below which nothing is known about what is usual."""
_QUANTILE = 0.99
_FIRST_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 10.0, 600.0
_EDGES = (*DURATION_EDGES, float("inf"))

Histogram = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Cumulative live answers per bucket of DURATION_EDGES at a time in seconds."""

    at: float
    answers: Histogram


class Pacer:
    """Fed with a `Look` every INTERVAL_SECONDS; `limit` is what may be in flight until the next."""

    def __init__(self, *, slowdown: float, most: int) -> None:
        """`slowdown`: how many times the usual 99th percentile is still fine. `most`: the largest limit."""
        self._slowdown = slowdown
        self._most = most
        self._looks: deque[Look] = deque()
        self._learned: deque[list[int]] = deque(maxlen=int(LEARNED_SECONDS / INTERVAL_SECONDS))
        """Live answers of each quiet interval."""
        self._threshold: float | None = None
        self._last_busy = -QUIET_SECONDS
        self._hold_seconds = 0.0
        self._hold_until = 0.0
        self._slowdown_now: float | None = None
        self.limit = most

    @property
    def threshold(self) -> float | None:
        """Seconds above which a live answer is too slow; None while nothing is known or nothing samples."""
        return self._threshold

    @property
    def slowdown(self) -> float | None:
        """99th percentile of the last window's live answers over the usual one; None as for `threshold`."""
        return self._slowdown_now if self._threshold is not None else None

    def look(self, look: Look, *, busy: bool) -> None:
        """`busy`: sampling requests are in flight or wait for their turn."""
        # What live answers take under sampling never becomes usual: from round to round it would only grow.
        if self._looks and not busy and self._looks[-1].at - self._last_busy >= QUIET_SECONDS:
            self._learned.append(_between(self._looks[-1].answers, look.answers))
        self._looks.append(look)
        while self._looks[0].at < look.at - WINDOW_SECONDS:
            self._looks.popleft()
        if busy:
            if look.at - self._last_busy >= QUIET_SECONDS:
                self._begin()
            self._last_busy = look.at
        elif look.at - self._last_busy >= QUIET_SECONDS:
            self._threshold, self._hold_seconds = None, 0.0
            # Ready to begin: what is in flight before the first look cannot be taken back.
            self.limit = 1 if self._is_known() else self._most
        if self._threshold is not None and busy:
            self._adjust(look)

    def _begin(self) -> None:
        """What was usual is the measure for as long as sampling goes on."""
        if self._is_known():
            self._threshold = self._slowdown * _quantile(self._usual())
            self.limit = 1

    def _usual(self) -> list[int]:
        return [sum(counts) for counts in zip_longest(*self._learned, fillvalue=0)]

    def _is_known(self) -> bool:
        return sum(self._usual()) >= _MIN_USUAL

    def _adjust(self, look: Look) -> None:
        assert self._threshold is not None
        recent = _between(self._looks[0].answers, look.answers)
        self._slowdown_now = _quantile(recent) * self._slowdown / self._threshold if sum(recent) else None
        slow = sum(count for count, edge in zip(recent, _EDGES, strict=False) if edge > self._threshold)
        if slow > (1.0 - _QUANTILE) * sum(recent):
            was, self.limit = self.limit, self.limit // 2
            if was and not self.limit:
                self._hold_seconds = min(max(2 * self._hold_seconds, _FIRST_HOLD_SECONDS), _LONGEST_HOLD_SECONDS)
                self._hold_until = look.at + self._hold_seconds
            # What was slow is dealt with: it does not count at the next look again.
            self._looks = deque([look])
        elif self.limit or look.at >= self._hold_until:
            self.limit = min(self._most, self.limit + 1)
            if self.limit > 1:
                self._hold_seconds = 0.0


def _between(before: Histogram, after: Histogram) -> list[int]:
    """Answers per bucket between two looks; a gateway that is forgotten in between leaves no negative counts."""
    if len(before) != len(after):
        before = (0,) * len(after)
    return [max(0, new - old) for old, new in zip(before, after, strict=True)]


def _quantile(answers: Sequence[int]) -> float:
    """Upper edge of the bucket that holds the 99th percentile."""
    wanted, seen = _QUANTILE * sum(answers), 0
    for edge, count in zip(DURATION_EDGES, answers, strict=False):
        seen += count
        if seen >= wanted:
            return edge
    return DURATION_EDGES[-1]
