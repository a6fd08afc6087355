"""GRPO, decoupled: advantages normalised within the group, every token of the training weighs the same.

    A = (r − mean(plain r)) / (std(r) + 1e-4)        ρ = πθ/π₀
    L = −1/N̄ Σ_i Σ_t  w · min(ρA, clip(ρ, 1 − low, 1 + high)·A)

N̄: mean number of completion tokens of a group over the training. w as for the clipped policy gradient: min(π₀/μ, 2)
as a constant, 0 for sequences that fail the K3 mask, 1 for strategy samples, which are kept only if A > 0 and have a
`high` of their own.

Source: DeepSeekMath, arXiv 2402.03300, with the token normalisation of DAPO (2503.14476), which is TRL's default
(`loss_type="dapo"`, `scale_rewards="group"`, beta = 0). With plain samples alone, from a sampler that is the trainer,
loss and advantages are TRL's. The standard deviation (over n − 1) is taken over all samples: over equal plain ones it
would be 0, and what a strategy found would weigh ten thousand times too much.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tao_daemon.learning.objectives.objective import Sizes, plain_rewards
from tao_daemon.learning.objectives.ratios import Surrogate

EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class Grpo(Surrogate):
    def advantages(self, rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
        baseline = statistics.fmean(plain_rewards(rewards, is_plain))
        spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
        return [(reward - baseline) / (spread + EPSILON) for reward in rewards]

    def scale(self, samples: int, sizes: Sizes) -> float:
        return 1.0 / sizes.per_group
