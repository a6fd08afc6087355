"""The gate's verdict from paired scores: pass, fail or inconclusive, in words and numbers.

pass          the gain is above 0 by both bootstraps, enough pairs differ, and every guard holds
fail          the candidate is worse (upper bound below 0), or a guard is broken
inconclusive  anything else, and final for the candidate: nothing is extended until it passes
Guards: length, truncation, refusals, degenerate answers, and how far it is from the base model, so that a candidate
cannot win by writing more, by being cut off, by saying nothing, or by becoming another model round after round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from statistics import fmean
from types import MappingProxyType

from tao_daemon.domain.report import SAME, Criterion, Decision, Interval, Pair, Standing, Verdict
from tao_daemon.evaluation.statistics import BootstrapIntervals, bootstrap_mean, ratio_of_means

RECOMMENDED_PAIRS = 200
"""For scores from a verifier."""
MAX_DROPPED = 0.1
"""Largest fraction of prompts that may go unscored before the rest no longer stands for them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gate demands. See the [gate] section of the configuration."""

    min_prompts: int
    confidence: float
    resamples: int
    min_differing_pairs: int
    max_length_ratio: float
    max_truncation_increase: float
    max_refusal_increase: float | None = None
    max_degenerate_increase: float | None = None
    max_length_ratio_to_base: float | None = None
    max_kl_to_base_per_token: float | None = None

    @property
    def settings(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


_GUARDED = ("refusal_increase", "degenerate_increase", "length_ratio_to_base", "kl_to_base_per_token")
MEASURED = (
    *_GUARDED,
    *(f"{name}_low" for name in _GUARDED[:3]),
    "kl_to_base",
    "kl_to_start",
    "entropy",
)
"""What a verdict is given beside the pairs: numbers of the texts and of the weights, see `evaluator` and `distance`.
Those that are guarded have a limit, and where they vary by chance a lower bound."""


def recorded_limits(settings: Mapping[str, float]) -> Limits:
    """The limits among a verdict's `settings`. Raises KeyError for one that every verdict has and that is not there."""
    known = {field.name: settings[field.name] for field in fields(Limits) if field.name in settings}
    if missing := [f.name for f in fields(Limits) if f.default is MISSING and f.name not in known]:
        raise KeyError(missing[0])
    return Limits(**known)  # type: ignore[arg-type]


def too_few(available: int, limits: Limits) -> Verdict | None:
    """The verdict that is due before any answer is asked for or any score is opened."""
    if available >= limits.min_prompts:
        return None
    reason = (
        f"{available} held-out prompts, fewer than gate.min_prompts ({limits.min_prompts}); "
        "wait for traffic or lower it"
    )
    numbers = {"available": float(available)}
    return _unjudged("prompts", reason, numbers, limits.settings)


def judge(
    pairs: Sequence[Pair],
    limits: Limits,
    *,
    available: int,
    seed: int,
    measured: Mapping[str, float] = MappingProxyType({}),
) -> Verdict:
    """Judge a candidate by its scored pairs, and by what else was `measured` (see MEASURED). `available` prompts were
    claimed; those not in `pairs` could not be answered or scored. The same pairs in the same order, the same numbers
    and the same seed give the same verdict."""
    assert len(pairs) <= available
    if (verdict := too_few(available, limits)) is not None:
        return verdict
    dropped = available - len(pairs)
    if not pairs or dropped > MAX_DROPPED * available:
        reason = (
            f"{dropped} of {available} prompts could not be answered or scored, more than {MAX_DROPPED:.0%}; "
            "see the log for scorer failures and refused prompts"
        )
        numbers = {"available": float(available), "pairs": float(len(pairs)), "dropped": float(dropped)}
        return _unjudged("scored_prompts", reason, numbers, {**limits.settings, "seed": seed})
    return _judge(pairs, limits, dropped, seed, measured)


def _unjudged(criterion: str, reason: str, numbers: Mapping[str, float], settings: Mapping[str, float]) -> Verdict:
    """Inconclusive before any difference is looked at."""
    criteria = (Criterion(criterion, Standing.OPEN, reason, numbers),)
    return Verdict(Decision.INCONCLUSIVE, (reason,), numbers, criteria, settings)


def _judge(pairs: Sequence[Pair], limits: Limits, dropped: int, seed: int, measured: Mapping[str, float]) -> Verdict:
    gain = _bootstrap([pair.difference for pair in pairs], (-1.0, 1.0), limits, seed)
    numbers = _numbers(pairs, limits, gain, seed)
    numbers |= {"available": float(len(pairs) + dropped), "dropped": float(dropped)}
    numbers |= {name: measured[name] for name in MEASURED if name in measured}
    criteria = [
        _gain(gain, len(pairs)),
        _differing(int(numbers["differing_pairs"]), limits.min_differing_pairs),
    ]
    for name in ("length_ratio", "truncation_increase", *_GUARDED):
        most = getattr(limits, f"max_{name}")
        if most is not None and name in numbers:
            criteria.append(_guard(name, numbers, most))
    standings = {criterion.outcome for criterion in criteria}
    if Standing.REFUTED in standings:
        decision = Decision.FAIL
    else:
        decision = Decision.INCONCLUSIVE if Standing.OPEN in standings else Decision.PASS
    # The gain always comes first; what stands in the way of a pass comes before what does not.
    ordered = (criteria[0], *sorted(criteria[1:], key=lambda criterion: criterion.outcome is Standing.HELD))
    reasons = (*(criterion.text for criterion in ordered), *_notes(len(pairs), dropped))
    return Verdict(decision, reasons, numbers, ordered, {**limits.settings, "seed": seed})


def _gain(gain: BootstrapIntervals, pairs: int) -> Criterion:
    interval, surer = gain.percentile, gain.studentised
    figures = f"{gain.mean:+.2f} {_range(interval)} over {pairs} pairs"
    if interval.high < 0.0:
        outcome, text = Standing.REFUTED, f"worse: gain {figures}"
    elif interval.low <= 0.0:
        outcome, text = Standing.OPEN, f"no sure gain: {figures}"
    elif surer.low <= 0.0:
        outcome = Standing.OPEN
        text = f"no sure gain: {figures}, but studentised {_range(surer)}: rare losses could outweigh it"
    else:
        outcome, text = Standing.HELD, f"gain {figures}"
    numbers = {
        "difference": gain.mean,
        "difference_low": interval.low,
        "difference_high": interval.high,
        "studentised_low": surer.low,
        "pairs": float(pairs),
    }
    return Criterion("gain", outcome, text, numbers)


def _differing(differing: int, least: int) -> Criterion:
    numbers = {"differing_pairs": float(differing), "least": float(least)}
    if differing >= least:
        text = f"{differing} pairs differ, at least {least} needed"
        return Criterion("differing_pairs", Standing.HELD, text, numbers)
    return Criterion("differing_pairs", Standing.OPEN, f"only {differing} pairs differ, {least} needed", numbers)


def _guard(name: str, found: Mapping[str, float], limit: float) -> Criterion:
    """Refuted when even the lower bound exceeds the limit; what exceeds it by chance perhaps does not pass either."""
    value, low = found[name], found.get(f"{name}_low", found[name])
    words, numbers = name.replace("_", " ").replace("kl", "KL"), {name: value, "low": low, "most": limit}
    if math.isnan(value):
        return Criterion(name, Standing.OPEN, f"{words} is not a number", numbers)
    if value <= limit:
        return Criterion(name, Standing.HELD, f"{words} {value:.2f}, at most {limit:.2f}", numbers)
    exceeds = f"{words} {value:.2f} exceeds {limit:.2f}"
    if low > limit:
        return Criterion(name, Standing.REFUTED, exceeds, numbers)
    return Criterion(name, Standing.OPEN, f"{exceeds}, perhaps by chance (at least {low:.2f})", numbers)


def _notes(pairs: int, dropped: int) -> list[str]:
    notes = []
    if pairs < RECOMMENDED_PAIRS:
        notes.append(f"{pairs} pairs, fewer than the {RECOMMENDED_PAIRS} recommended for a verifier")
    if dropped:
        notes.append(f"{dropped} prompts left out: not answered or not scored")
    return notes


def _numbers(pairs: Sequence[Pair], limits: Limits, gain: BootstrapIntervals, seed: int) -> dict[str, float]:
    incumbent = _bootstrap([pair.incumbent_score for pair in pairs], (0.0, 1.0), limits, seed)
    candidate = _bootstrap([pair.candidate_score for pair in pairs], (0.0, 1.0), limits, seed)
    cut = _bootstrap([p.candidate_truncated - p.incumbent_truncated for p in pairs], (-1.0, 1.0), limits, seed)
    _, lengths = ratio_of_means(
        [pair.candidate_tokens for pair in pairs],
        # A hundredth of a token for each, so that a resample of empty answers has a length too.
        [pair.incumbent_tokens + 0.01 for pair in pairs],
        confidence=limits.confidence,
        resamples=limits.resamples,
        seed=seed,
    )
    return {
        "incumbent_score": incumbent.mean,
        "incumbent_score_low": incumbent.percentile.low,
        "incumbent_score_high": incumbent.percentile.high,
        "candidate_score": candidate.mean,
        "candidate_score_low": candidate.percentile.low,
        "candidate_score_high": candidate.percentile.high,
        "difference": gain.mean,
        "difference_low": gain.percentile.low,
        "difference_high": gain.percentile.high,
        "studentised_low": gain.studentised.low,
        "studentised_high": gain.studentised.high,
        "pairs": float(len(pairs)),
        "differing_pairs": float(sum(abs(pair.difference) > SAME for pair in pairs)),
        "length_ratio": _length_ratio(pairs),
        "length_ratio_low": lengths.low,
        "truncation_increase": cut.mean,
        "truncation_increase_low": cut.percentile.low,
        "confidence": limits.confidence,
    }


def _bootstrap(values: Sequence[float], support: tuple[float, float], limits: Limits, seed: int) -> BootstrapIntervals:
    return bootstrap_mean(values, support=support, confidence=limits.confidence, resamples=limits.resamples, seed=seed)


def _length_ratio(pairs: Sequence[Pair]) -> float:
    """Mean candidate length over mean incumbent length; an incumbent mean below one token counts as one."""
    incumbent = fmean(pair.incumbent_tokens for pair in pairs)
    return fmean(pair.candidate_tokens for pair in pairs) / max(incumbent, 1.0)


def _range(interval: Interval) -> str:
    return f"[{interval.low:+.2f}, {interval.high:+.2f}]"
