"""What a rollout's evidence amounts to: a regression, enough to go on, or what is still missing. In words and numbers.

Pure. The chance α that a candidate no worse is aborted is split: half to the shadow's differences, the other half
evenly over the canary's four tests. A test with the share α_i speaks when its e-value reaches 1/α_i. By Ville's
inequality and a union bound the chance that any ever does is at most α, however often it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

from tao_daemon.domain.rollout import Evidence, ShadowTally
from tao_daemon.domain.traffic import ArmCounts, SplitCounts
from tao_daemon.rollout.eprocess import not_inferior_evidence, rate_evidence, risk_evidence, worse_evidence

_COUNTED = ("errors", "slow", "truncated")
"""The failures of `ArmCounts` whose relative risk is tested; with the absolute rate of errors, four tests."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rollout demands. See the [rollout] section of the configuration."""

    alpha: float
    margin: float
    """The one that the tally was made with; it appears in words only."""
    relative_risk: float
    max_error_fraction: float
    min_pairs: int


@dataclass(frozen=True, slots=True)
class _Test:
    """One e-value, the threshold that makes it a regression, and how it reads."""

    name: str
    value: float
    threshold: float
    text: str


def find_regression(evidence: Evidence, limits: Limits) -> str | None:
    """Why the candidate is worse than what it replaces, or None: nothing says so, or not yet."""
    for test in _tests(evidence, limits):
        if test.value >= test.threshold:
            return f"{test.text}, e-value {_figure(test.value)} reaches {_figure(test.threshold)}"
    return None


def shadow_passed(evidence: Evidence, limits: Limits) -> bool:
    """Enough pairs, and they refute that the candidate is worse by the margin (E ≥ 1/α)."""
    tally = evidence.shadow
    return tally.pairs >= limits.min_pairs and not_inferior_evidence(tally) >= 1.0 / limits.alpha


def shadow_wants(evidence: Evidence, limits: Limits) -> str:
    """What the shadow still needs, in words; empty when it passed."""
    tally = evidence.shadow
    if tally.pairs < limits.min_pairs:
        skipped = f", {tally.skipped} skipped" if tally.skipped else ""
        return f"{tally.pairs} of {limits.min_pairs} pairs{skipped}"
    if shadow_passed(evidence, limits):
        return ""
    return (
        f"{tally.pairs} pairs, not yet sure that it is not more than {limits.margin:.2f} worse: "
        f"e-value {_figure(not_inferior_evidence(tally))} of {_figure(1.0 / limits.alpha)}"
    )


def numbers(evidence: Evidence, limits: Limits) -> dict[str, float]:
    """Everything a dashboard shows, all finite: `evidence_<test>` reaches `threshold_<test>` when it is a regression
    (`not_inferior`: when the shadow passed); counts are over all steps, `step_…` is the present one."""
    tally = evidence.shadow
    found = {
        "shadow_pairs": float(tally.pairs),
        "shadow_pairs_wanted": float(limits.min_pairs),
        "shadow_skipped": float(tally.skipped),
        "shadow_candidate_failures": float(tally.candidate_failures),
        "shadow_mean_difference": _mean(tally),
        "evidence_not_inferior": not_inferior_evidence(tally),
        "threshold_not_inferior": 1.0 / limits.alpha,
    }
    for test in _tests(evidence, limits):
        found[f"evidence_{test.name}"] = test.value
        found[f"threshold_{test.name}"] = test.threshold
    counts = _counts(evidence)
    for arm in fields(SplitCounts):
        for count in fields(ArmCounts):
            found[f"{arm.name}_{count.name}"] = float(attrgetter(f"{arm.name}.{count.name}")(counts))
    present = evidence.steps[-1].counts if evidence.steps else SplitCounts()
    found["step_fraction"] = evidence.steps[-1].fraction if evidence.steps else 0.0
    found["step_candidate_conversations"] = float(present.candidate.conversations)
    found["step_incumbent_conversations"] = float(present.incumbent.conversations)
    return found


def _tests(evidence: Evidence, limits: Limits) -> Iterator[_Test]:
    half = 2.0 / limits.alpha
    tally, counts = evidence.shadow, _counts(evidence)
    text = f"shadow: {tally.pairs} pairs, mean difference {_mean(tally):+.2f}"
    yield _Test("worse", worse_evidence(tally), half, text)
    share = half * (len(_COUNTED) + 1)
    for name in _COUNTED:
        yield _Test(name, *_risk(evidence, limits, name, share))
    # A conversation that was counted in an earlier phase may fail for the first time in this one.
    trials = counts.candidate.conversations
    failures = min(counts.candidate.errors, trials)
    text = f"errors: {failures} of the candidate's {trials} conversations, at most {limits.max_error_fraction:.0%} may"
    yield _Test("error_rate", rate_evidence(failures, trials, limits.max_error_fraction), share, text)


def _risk(evidence: Evidence, limits: Limits, name: str, threshold: float) -> tuple[float, float, str]:
    """E-value, threshold and words of one kind of failure, candidate against incumbent."""
    count = attrgetter(name)
    steps = [
        (count(step.counts.candidate), count(step.counts.candidate) + count(step.counts.incumbent), step.fraction)
        for step in evidence.steps
    ]
    compared = [step for step in steps if 0.0 < step[2] < 1.0]
    ours, both = sum(step[0] for step in compared), sum(step[1] for step in compared)
    expected = sum(step[1] * step[2] for step in compared)
    text = f"{name}: {ours} of {both} in the candidate's arm, {expected:.1f} expected"
    return risk_evidence(steps, limits.relative_risk), threshold, text


def _counts(evidence: Evidence) -> SplitCounts:
    return sum((step.counts for step in evidence.steps), SplitCounts())


def _mean(tally: ShadowTally) -> float:
    return tally.total / tally.pairs if tally.pairs else 0.0


def _figure(value: float) -> str:
    """Rounded down: what has not reached its threshold does not read as if it had."""
    return f"{math.floor(value * 10.0) / 10.0:g}" if value < 1e4 else f"{value:.1e}"
