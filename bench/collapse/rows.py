"""One round in figures, and which meter, guard or criterion was the first to notice what goes wrong. Pure.

rows → notices, in the order of rounds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tao_daemon.domain.report import Decision, Standing, Verdict
from tao_daemon.domain.round import Outcome


class Accept(Enum):
    """Which candidates serve."""

    PASSED = "what passes the gate"
    ALL = "everything"


@dataclass(slots=True)
class Row:
    round: int
    outcome: str
    """As a round ends: accepted, rejected, inconclusive, failed."""
    meters: Mapping[str, float]
    """Of the completions that what serves gave at the beginning of the round."""
    reason: str = ""
    reward: float | None = None
    """Mean over what could be scored."""
    against: tuple[str, ...] = ()
    """See `against`."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The verdict's."""
    trained: Mapping[str, float] = field(default_factory=dict)
    candidate_truth: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    """Texts without a score, by the kind of failure."""
    planted: int = 0
    fooled: int = 0
    truth: float = 0.0
    """Of what serves after the round: the true share of right answers."""
    tokens: float = 0.0
    entropy: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notice:
    round: int
    by: str
    """gate.<criterion>, scoring.<failure>, round.failed, meter.<name>, training.<reason to stop>."""


_OUTCOMES = {
    Decision.PASS: Outcome.ACCEPTED,
    Decision.FAIL: Outcome.REJECTED,
    Decision.INCONCLUSIVE: Outcome.INCONCLUSIVE,
}
FALLS = {"entropy": 0.8, "distinct_texts": 0.5, "distinct_2": 0.75}
"""A meter below so much of its first value says that answers become the same."""
GROWS = {"tokens_mean": 1.5}
"""A meter above so many times its first value, or below the inverse."""
RISES = {"refusals": 0.15, "repeated": 0.1, "empty": 0.1, "truncated": 0.1}
"""A share that has grown by so much."""
FAR = 2.0
"""Nats per answer from the base model that are worth a look."""


def outcome(verdict: Verdict) -> str:
    """How a round with this verdict ends."""
    return _OUTCOMES[verdict.decision].value


def against(verdict: Verdict) -> tuple[str, ...]:
    """The gate's criteria that were refuted, and those that alone were in the way of a gain that was sure."""
    gained = any(each.name == "gain" and each.outcome is Standing.HELD for each in verdict.criteria)
    speaks = (Standing.REFUTED, Standing.OPEN) if gained else (Standing.REFUTED,)
    return tuple(each.name for each in verdict.criteria if each.outcome in speaks)


def notices(rows: Sequence[Row]) -> list[Notice]:
    """The first time that each of them spoke."""
    first: dict[str, Notice] = {}
    for row in rows:
        for by in _noticed(row, rows[0].meters):
            first.setdefault(by, Notice(row.round, by))
    return list(first.values())


def _noticed(row: Row, before: Mapping[str, float]) -> Iterator[str]:
    yield from (f"scoring.{kind}" for kind in row.failures)
    if row.outcome == "failed":
        yield "round.failed"
    yield from (f"gate.{name}" for name in row.against)
    if row.trained.get("stopped_on_kl"):
        yield "training.kl_budget"
    if row.numbers.get("kl_to_base", 0.0) > FAR:
        yield "meter.kl_to_base"
    yield from (f"meter.{name}" for name in _moved(row.meters, before))


def _moved(now: Mapping[str, float], before: Mapping[str, float]) -> Iterator[str]:
    both = now.keys() & before.keys()
    yield from (name for name, least in FALLS.items() if name in both and now[name] < least * before[name])
    for name, most in GROWS.items():
        if name in both and not before[name] / most <= now[name] <= before[name] * most:
            yield name
    yield from (name for name, most in RISES.items() if name in both and now[name] > before[name] + most)
