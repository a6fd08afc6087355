"""Clipped policy gradient over completion tokens, with the correction for a sampler that is not the trainer.

Tensors are flat over the T completion tokens of one pack. Names: πθ `logprobs_T`, π₀ `reference_T` (the policy
training starts from, by the trainer), μ `behaviour_T` (the sampler's record of it). All in nats; no gradient
flows through anything but πθ.

    A = r − mean(plain r)        ρ = πθ/π₀        m = π₀/μ
    L = −1/(G·L_max) Σ_i Σ_t  w · min(ρA, clip(ρ, 1 − low, 1 + high)·A)
    plain samples     w = min(m, 2), or 0 for the whole sequence when mean_t(m − log m − 1) > 0.01
    strategy samples  w = 1

Left out on purpose: division by the spread of rewards (it favours prompts that are nearly solved or hopeless)
and by each sequence's own length (it favours long wrong answers).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_IMPORTANCE_WEIGHT = 2.0
"""Truncation of π₀/μ per token (truncated importance sampling)."""
MAX_DIVERGENCE = 0.01
"""A plain sequence whose mean m − log m − 1 exceeds this was not sampled from π₀ and is dropped."""


@dataclass(frozen=True, slots=True)
class Clip:
    """ρ is clipped to [1 − low, 1 + high]."""

    low: float
    high: float


def k3(log_ratio_T: Tensor) -> Tensor:
    """ρ − log ρ − 1 per token, for log ρ: never negative, and unbiased for a KL divergence.

    Its mean over samples of q, with ρ = p/q, estimates KL(q‖p) (Schulman, "Approximating KL Divergence", k3).
    """
    return torch.expm1(log_ratio_T) - log_ratio_T


def importance_weights(reference_T: Tensor, behaviour_T: Tensor, owners_T: Tensor) -> Tensor:
    """w_T of plain samples: min(π₀/μ, 2), 0 throughout a sequence that diverges. `owners_T`: sequence per token."""
    log_m_T = (reference_T - behaviour_T).detach()
    sequences = int(owners_T.max()) + 1
    sums_S = torch.zeros(sequences, dtype=log_m_T.dtype, device=log_m_T.device).index_add_(0, owners_T, k3(log_m_T))
    tokens_S = torch.bincount(owners_T, minlength=sequences).clamp(min=1)
    kept_S = sums_S / tokens_S <= MAX_DIVERGENCE
    return log_m_T.exp().clamp(max=MAX_IMPORTANCE_WEIGHT) * kept_S[owners_T]


def clipped_policy_gradient(
    logprobs_T: Tensor, reference_T: Tensor, advantages_T: Tensor, weights_T: Tensor, clip: Clip
) -> Tensor:
    """−Σ_t w·min(ρA, clip(ρ)·A), a scalar. The caller divides by G·L_max, the same for every pack of a group."""
    ratio_T = torch.exp(logprobs_T - reference_T)
    clipped_T = ratio_T.clamp(1.0 - clip.low, 1.0 + clip.high)
    return -(weights_T * torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)).sum()


def clipped_fraction(logprobs_T: Tensor, reference_T: Tensor, advantages_T: Tensor, clip: Clip) -> float:
    """Share of tokens whose gradient the clip removes: those already moved far enough in their direction."""
    ratio_T = torch.exp(logprobs_T - reference_T)
    above_T = (ratio_T > 1.0 + clip.high) & (advantages_T > 0)
    below_T = (ratio_T < 1.0 - clip.low) & (advantages_T < 0)
    return float((above_T | below_T).float().mean())
