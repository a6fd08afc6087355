"""Verdicts and the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Decision(StrEnum):
    """The gate's verdict on a candidate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


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
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer, with every criterion in words and every number it used."""

    decision: Decision
    reasons: tuple[str, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        return "; ".join(self.reasons)
