"""Probability ratios: between sampler and trainer, and between the policy that moves and the one it started from.

Pure. Names: πθ `now_T`, π₀ `reference_T`, μ `behaviour_T` (the sampler's record of π₀).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tao_daemon.domain.report import SAME
from tao_daemon.learning.objectives.objective import Fixed

if TYPE_CHECKING:
    from torch import Tensor

MAX_IMPORTANCE_WEIGHT = 2.0
"""Truncation of π₀/μ per token (truncated importance sampling)."""
MAX_DIVERGENCE = 0.01
"""A plain sequence whose mean m − log m − 1 exceeds this was not sampled from π₀ and is dropped."""


@dataclass(frozen=True, slots=True)
class Clip:
    """ρ is clipped to [1 − low, 1 + high], on tokens that π₀ did not sample to [1 − low, 1 + strategy_high].

    The clip keeps πθ near the policy that sampled. A strategy's tokens come from another prompt: π₀ may find them
    rare, and 1.28 times rare is rare, so that under `high` what exploration finds would hardly be learned.
    """

    low: float
    high: float
    strategy_high: float

    def upper_T(self, fixed: Fixed) -> Tensor:
        """1 + high per token."""
        high_T = fixed.reference_T.new_full(fixed.reference_T.shape, 1.0 + self.strategy_high)
        return high_T.masked_fill(fixed.plain_T, 1.0 + self.high)


def k3(log_ratio_T: Tensor) -> Tensor:
    """ρ − log ρ − 1 per token, for log ρ: never negative, and unbiased for a KL divergence.

    Its mean over samples of q, with ρ = p/q, estimates KL(q‖p) (Schulman, "Approximating KL Divergence", k3).
    """
    return log_ratio_T.expm1() - log_ratio_T


def importance_weights(reference_T: Tensor, behaviour_T: Tensor, owners_T: Tensor) -> Tensor:
    """w_T = min(m, 2) with m = π₀/μ, and 0 throughout a sequence whose mean_t(m − log m − 1) exceeds 0.01."""
    log_m_T = (reference_T - behaviour_T).detach()
    sums_S = sum_by_sequence(k3(log_m_T), owners_T)
    kept_S = sums_S / owners_T.bincount().clamp(min=1) <= MAX_DIVERGENCE
    return log_m_T.exp().clamp(max=MAX_IMPORTANCE_WEIGHT) * kept_S[owners_T]


def clipped_surrogate(now_T: Tensor, fixed: Fixed, clip: Clip) -> Tensor:
    """−w·min(ρA, clip(ρ, 1 − low, 1 + high)·A) per token, with ρ = πθ/π₀ (PPO, arXiv 1707.06347, eq. 7)."""
    ratio_T = (now_T - fixed.reference_T).exp()
    advantages_T = fixed.advantages_S[fixed.owners_T]
    clipped_T = ratio_T.clamp(min=1.0 - clip.low).minimum(clip.upper_T(fixed)) * advantages_T
    return -(fixed.weights_T * (ratio_T * advantages_T).minimum(clipped_T))


def clip_removes_T(now_T: Tensor, fixed: Fixed, clip: Clip) -> Tensor:
    """Tokens whose gradient the clip removes: already moved far enough in the direction of their advantage."""
    ratio_T = (now_T - fixed.reference_T).exp()
    advantages_T = fixed.advantages_S[fixed.owners_T]
    above_T = (ratio_T > clip.upper_T(fixed)) & (advantages_T > 0)
    below_T = (ratio_T < 1.0 - clip.low) & (advantages_T < 0)
    return above_T | below_T


@dataclass(frozen=True, slots=True)
class Surrogate:
    """What objectives with a clipped surrogate share: all but advantages and scale."""

    clip: Clip

    def keeps(self, advantage: float, *, plain: bool) -> bool:
        return plain or advantage > SAME

    def weights_T(self, reference_T: Tensor, behaviour_T: Tensor, owners_T: Tensor) -> Tensor:
        return importance_weights(reference_T, behaviour_T, owners_T)

    def loss(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        return (clipped_surrogate(now_T, fixed, self.clip) * fixed.scales_S[fixed.owners_T]).sum()

    def clipped_T(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        return clip_removes_T(now_T, fixed, self.clip)


def sum_by_sequence(values_T: Tensor, owners_T: Tensor) -> Tensor:
    """Σ over the tokens of each sequence, shape S."""
    return values_T.new_zeros(int(owners_T.max()) + 1).index_add(0, owners_T, values_T)
