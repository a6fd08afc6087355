"""Verdicts and the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SAME = 1e-9
"""Two scores that differ by no more are the same: neither answer wins."""


class Decision(StrEnum):
    """The gate's verdict on a candidate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Standing(StrEnum):
    """What the evidence says of one criterion."""

    HELD = "held"
    REFUTED = "refuted"
    OPEN = "open"
    """Neither: not enough is known."""


class AnswerOrder(StrEnum):
    """Which pairs of answers come first."""

    REGRESSIONS = "regressions"
    """The candidate's worst losses."""
    GAINS = "gains"
    """The candidate's largest gains."""
    ARRIVAL = "arrival"
    """As the gate asked them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both answers to one held-out prompt, scored. Scores in [0, 1]; lengths in tokens."""

    prompt_id: str
    incumbent_score: float
    candidate_score: float
    incumbent_tokens: int
    candidate_tokens: int
    incumbent_truncated: bool
    candidate_truncated: bool

    @property
    def difference(self) -> float:
        """Candidate minus incumbent, in [−1, 1]."""
        return self.candidate_score - self.incumbent_score


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """Some of a gate's answers, and counts over all of them."""

    rows: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """With `prompt_id`, and text, score, tokens and truncated of `incumbent_` and of `candidate_`."""
    total: int = 0
    wins: int = 0
    """Pairs in which the candidate's score is higher."""
    ties: int = 0
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval, of `gate.confidence` at the gate."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing the gate demands, and what came of it."""

    name: str
    outcome: Standing
    text: str
    """How it reads, with its figures."""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer, with every criterion in words and every number it used."""

    decision: Decision
    reasons: tuple[str, ...]
    """What every criterion says, the gain first, then what stands in the way of a pass; and remarks."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    criteria: tuple[Criterion, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    """The limits and the seed that it was judged with: with the pairs, enough to judge again."""

    @property
    def summary(self) -> str:
        return "; ".join(self.reasons)
