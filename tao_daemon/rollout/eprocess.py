"""Evidence against a rollout that may be looked at after every observation: e-processes by betting.

Pure. A bettor starts with 1 and bets on every observation at odds that are fair or worse under the null hypothesis
H₀; its wealth E is then a non-negative supermartingale, and by Ville's inequality

    P( E ever reaches 1/α | H₀ ) ≤ α      at any moment, under any rule for stopping, with dependent observations.

An average of such wealths is one too, so what would have to be guessed (how large a bet, how large a risk) is a grid
that the wealth is spread over evenly: that costs at most a factor of the grid's length in E.

Sources: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024 (the bets
on differences); Ramdas, Grünwald, Vovk & Shafer, "Game-theoretic statistics and safe anytime-valid inference",
Statistical Science 38, 2023 (Ville's inequality, mixtures, composite hypotheses).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat

from tao_daemon.domain.rollout import ShadowPair, ShadowTally

_BETS = tuple(0.95 * 0.02 ** (step / 11) for step in reversed(range(12)))
"""Fractions of the largest bet, log-spaced from 0.019 to 0.95. The best bet on a mean m is near m/(m² + variance): the
least ones are for |m| = 0.02 in full noise. Not 1: that bet is ruined by a single observation, for good."""
_RISKS = tuple(1.25 * 16 ** (step / 7) for step in range(8))
"""Alternatives to a relative risk, or to the odds of a rate, as multiples of the limit: log-spaced from 1.25 to 20."""
_MAX_LOG = 700.0
"""e^700 is still a float. More evidence than that is not needed."""


def observe(tally: ShadowTally, pairs: Sequence[ShadowPair], skipped: int, margin: float) -> ShadowTally:
    """`tally` after `pairs`, in their order of arrival, and after `skipped` more that could not be scored.

    With d_t the difference of pair t, and one wealth per λ of a grid:

        worse          H₀ E[d_t | past] ≥ 0          Π (1 − λ d_t)               λ in (0, 1)
        not inferior   H₀ E[d_t | past] ≤ −margin    Π (1 + λ (d_t + margin))    λ in (0, 1/(1 − margin))

    Every factor is positive for d_t in [−1, 1]. The products do not depend on how the pairs are batched. When the
    margin changes on the way, the evidence is about the larger one. Wealths that were kept for another grid are
    pooled and spread anew, which keeps them valid. Raises ValueError for a difference outside [−1, 1] (NaN too).
    """
    if not 0.0 < margin < 1.0:
        raise ValueError(f"margin {margin!r} is not between 0 and 1; it is how much worse a mean score may be")
    if skipped < 0:
        raise ValueError(f"{skipped} skipped pairs; a count is not negative")
    differences = [_checked(pair) for pair in pairs]
    largest = 1.0 / (1.0 - margin)
    return ShadowTally(
        pairs=tally.pairs + len(pairs),
        total=tally.total + math.fsum(differences),
        candidate_failures=tally.candidate_failures + sum(pair.candidate_failed for pair in pairs),
        skipped=tally.skipped + skipped,
        worse=_grown(tally.worse, [-d for d in differences], _BETS),
        not_inferior=_grown(tally.not_inferior, [d + margin for d in differences], [largest * bet for bet in _BETS]),
    )


def worse_evidence(tally: ShadowTally) -> float:
    """E against "the candidate's mean score is at least the incumbent's". 1 without pairs; at most e^700."""
    return _capped(_log_mean_exp(tally.worse))


def not_inferior_evidence(tally: ShadowTally) -> float:
    """E against "the candidate's mean score is lower by the margin or more". 1 without pairs; at most e^700."""
    return _capped(_log_mean_exp(tally.not_inferior))


def risk_evidence(steps: Sequence[tuple[int, int, float]], relative_risk: float) -> float:
    """E against "a conversation fails at most R = `relative_risk` times as often with the candidate".

    Per step: (failures of the candidate's arm k, failures of both arms n, the candidate's share of conversations f).
    Which arm the next failure is in is a coin: under H₀ it falls to the candidate with a probability of at most
    q₀ = R f/(R f + 1 − f), whatever happens to both arms alike. Against it, larger risks R_j > R and their q_j:

        E_s = mean_j Π_{steps from s on} (q_j/q₀)^k ((1 − q_j)/(1 − q₀))^(n−k)
        E   = Σ_s E_s / (s (s + 1)) + 1/(S + 1)        s = 1 … S

    For a coin with q ≤ q₀ one factor's expectation is q (q_j/q₀) + (1 − q)(1 − q_j)/(1 − q₀). It grows with q, since
    q_j > q₀, and is 1 at q₀: so E is valid for every q ≤ q₀, also one that changes from failure to failure. E_s bets
    from step s on; what is set aside for steps to come is still 1. So an incident of both arms in an early step,
    which costs E_1 nearly everything, does not hide what a later step shows. A step with one arm alone says nothing.
    """
    if not (relative_risk > 0.0 and math.isfinite(relative_risk)):
        raise ValueError(f"relative risk {relative_risk!r} is not a positive number")
    for candidate, both, fraction in steps:
        if not (0 <= candidate <= both and 0.0 <= fraction <= 1.0):
            raise ValueError(f"{candidate} of {both} failures at a share of {fraction!r} cannot be")
    compared = [step for step in steps if 0.0 < step[2] < 1.0]
    logs, evidence = [0.0] * len(_RISKS), 1.0 / (len(compared) + 1)
    for start in range(len(compared), 0, -1):
        gains = _log_ratios(*compared[start - 1], relative_risk)
        logs = [log + gain for log, gain in zip(logs, gains, strict=True)]
        evidence += _capped(_log_mean_exp(logs)) / (start * (start + 1))
    return evidence


def rate_evidence(failures: int, trials: int, limit: float) -> float:
    """E against "a trial fails with a probability of at most `limit`". 1 without trials; at most e^700.

    The same ratios, for larger rates p_j whose odds are the limit's times the grid:
    E = mean_j (p_j/limit)^failures ((1 − p_j)/(1 − limit))^(trials−failures).
    """
    if not 0.0 < limit < 1.0:
        raise ValueError(f"limit {limit!r} is not between 0 and 1; it is a share of the trials")
    if not 0 <= failures <= trials:
        raise ValueError(f"{failures} failures of {trials} trials cannot be")
    return _capped(_log_mean_exp(_log_ratios(failures, trials, limit, 1.0)))


def _log_ratios(candidate: int, both: int, fraction: float, risk: float) -> list[float]:
    """The log of each alternative's likelihood ratio. With R_j = multiple · R, (1 − q_j)/(1 − q₀) is
    c = (R f + 1 − f)/(R_j f + 1 − f) and q_j/q₀ is multiple · c: no digits are lost for a small share."""
    odds, rest = risk * fraction, 1.0 - fraction
    return [candidate * math.log(m) + both * math.log((odds + rest) / (m * odds + rest)) for m in _RISKS]


def _checked(pair: ShadowPair) -> float:
    if not -1.0 <= pair.difference <= 1.0:
        raise ValueError(f"difference {pair.difference!r} of prompt {pair.prompt_id} is not in [-1, 1]; skip the pair")
    return pair.difference


def _grown(logs: Sequence[float], outcomes: Sequence[float], bets: Sequence[float]) -> tuple[float, ...]:
    """The log-wealth of each bet after `outcomes`: + Σ log(1 + bet · outcome)."""
    kept: Iterable[float] = logs if len(logs) == len(bets) else repeat(_log_mean_exp(logs), len(bets))
    return tuple(
        log + math.fsum(math.log1p(bet * outcome) for outcome in outcomes) for log, bet in zip(kept, bets, strict=True)
    )


def _log_mean_exp(logs: Sequence[float]) -> float:
    """Log of the mean wealth; of nothing yet, 0: every bettor starts with 1."""
    if not logs:
        return 0.0
    most = max(logs)
    return most + math.log(math.fsum(math.exp(log - most) for log in logs) / len(logs))


def _capped(log: float) -> float:
    return math.exp(min(log, _MAX_LOG))
