"""Clipped policy gradient: PPO's clip on a frozen batch, corrected for a sampler that is not the trainer.

    A = r − mean(plain r)        ρ = πθ/π₀        m = π₀/μ
    L = −1/(G·L_max) Σ_i Σ_t  w · min(ρA, clip(ρ, 1 − low, 1 + high)·A)
    plain samples     w = min(m, 2), or 0 for the whole sequence when mean_t(m − log m − 1) > 0.01
    strategy samples  w = 1, kept only if A > 0, and a `high` of their own

G: samples of the group; L_max: longest completion of the training. Left out on purpose: division by the spread of
rewards (it favours prompts that are nearly solved or hopeless) and by each sequence's own length (it favours long
wrong answers): "Dr. GRPO", arXiv 2503.20783. The asymmetric clip is DAPO's (2503.14476), the decoupling of π₀
from μ is AReaL's (2505.24298).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tao_daemon.learning.objectives.objective import Sizes, plain_rewards
from tao_daemon.learning.objectives.ratios import Surrogate


@dataclass(frozen=True, slots=True)
class ClippedPolicyGradient(Surrogate):
    def advantages(self, rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
        baseline = statistics.fmean(plain_rewards(rewards, is_plain))
        return [reward - baseline for reward in rewards]

    def scale(self, samples: int, sizes: Sizes) -> float:
        return 1.0 / (samples * sizes.longest)
