"""How many sampling requests may be in flight, so that live requests on the same servers are spared. Pure.

The rule: of the live answers of the last seconds, at most 1 % may take longer than `slowdown` times the 99th percentile
of the time without sampling. Additive increase, multiplicative decrease (Chiu & Jain 1989), as TCP does it. It
begins with a single request; where even that is too much, it holds, each time twice as long as before. Where live
answers come and nothing is known about what is usual, as after a restart in the middle of a round, it holds sampling
for a minute to learn it.

quiet (learns what is usual) → sampling (holds to it) → quiet again after `QUIET_SECONDS` without a request
unknown (live answers come) → held (learns) → sampling, unpaced for a while when too few answers came
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
START_SECONDS = 10.0
"""After the first look, with one request in flight at most: gateways find a restarted daemon by then."""
LEARNING_SECONDS = 60.0
"""For which sampling is held to learn what is usual; what is in flight ends first."""
LONGEST_LEARNING_SECONDS = 300.0
"""The same with what is in flight."""
UNPACED_SECONDS = 600.0
"""From a hold that learned too little to the next one; what it learned stays."""
_MIN_USUAL = 50
"""Live answers below which nothing is known about what is usual."""
_QUANTILE = 0.99
_FIRST_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 10.0, 600.0
_EDGES = (*DURATION_EDGES, float("inf"))
_LEARNING = "sampling is held for a minute, to learn how long live answers usually take"
_TOO_SLOW = "sampling is held: live answers take longer than sampling.live_slowdown times their usual"

Histogram = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Cumulative live answers per bucket of DURATION_EDGES at a time in seconds; () while none are reported."""

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
        """Live answers of each interval without sampling."""
        self._first_look: float | None = None
        self._learn_until: float | None = None
        """None while sampling is not held to learn."""
        self._learn_at_latest = 0.0
        self._learn_again = 0.0
        self._empty_since: float | None = None
        """While sampling is held to learn: since when nothing has been in flight, nor could be."""
        self._threshold: float | None = None
        self._last_busy = float("-inf")
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

    @property
    def held(self) -> str:
        """Why nothing may be asked now; "" while something may."""
        if self.limit:
            return ""
        return _LEARNING if self._threshold is None else _TOO_SLOW

    def look(self, look: Look, *, in_flight: int, waiting: int) -> None:
        """Sampling requests that are `in_flight`, and that are `waiting` for their turn."""
        busy = bool(in_flight or waiting)
        self._learn(look, busy)
        self._looks.append(look)
        while self._looks[0].at < look.at - WINDOW_SECONDS:
            self._looks.popleft()
        if busy:
            self._last_busy = look.at
            self._pace(look, in_flight)
        elif self._is_quiet(look.at):
            self._threshold, self._hold_seconds, self._learn_until = None, 0.0, None
            # Ready to begin: what is in flight before the first look cannot be taken back.
            self.limit = 1 if self._is_known() else self._unknown_limit(look)
        self._note_empty(look.at, in_flight)

    def _learn(self, look: Look, busy: bool) -> None:
        """What live answers take under sampling never becomes usual: from round to round it would only grow."""
        if self._first_look is None:
            self._first_look = look.at
        if not self._looks or not self._looks[-1].answers:
            return  # how many answers are news is not known
        before = self._looks[-1]
        # The first interval of a hold has answers that began beside sampling.
        held = self._empty_since is not None and before.at - self._empty_since >= INTERVAL_SECONDS
        if held or (not busy and self._is_quiet(before.at)):
            self._learned.append(_between(before.answers, look.answers))

    def _note_empty(self, at: float, in_flight: int) -> None:
        if in_flight or self.limit or self._threshold is not None:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = at

    def _pace(self, look: Look, in_flight: int) -> None:
        """What was usual is the measure for as long as sampling goes on."""
        if self._threshold is None and self._is_known():
            self._threshold = self._slowdown * _quantile(self._usual())
            self._learn_until = None
            self.limit = 1
        if self._threshold is None:
            self._hold_to_learn(look, in_flight)
        else:
            self._adjust(look)

    def _hold_to_learn(self, look: Look, in_flight: int) -> None:
        """Within a deadline: sampling goes on then, whatever is known."""
        if self._learn_until is None:
            self.limit = self._unknown_limit(look)
            if self.limit:
                return
            self._learn_at_latest = look.at + LONGEST_LEARNING_SECONDS
            self._learn_until = look.at + LEARNING_SECONDS
        elif in_flight:
            self._learn_until = min(look.at + LEARNING_SECONDS, self._learn_at_latest)
        if look.at >= self._learn_until:
            self._learn_until, self._learn_again = None, look.at + UNPACED_SECONDS
            self.limit = self._most

    def _unknown_limit(self, look: Look) -> int:
        """While nothing is known about what is usual."""
        live = sum(_between(self._looks[0].answers, look.answers)) > 0
        if live and look.at >= self._learn_again:
            return 0
        assert self._first_look is not None
        return 1 if look.at - self._first_look < START_SECONDS else self._most

    def _is_quiet(self, at: float) -> bool:
        return at - self._last_busy >= QUIET_SECONDS

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
