"""OAPL: regression of the log-probability ratio on the advantage under the optimal policy, made for frozen batches.

    V = β₁·log( mean_i exp(r_i/β₁) ), plain samples only
    L = mean_i [ β₂·Σ_t(log πθ − log π₀) − (r_i − V) ]²

The mean is over the samples of the group that train. Needs no importance weights, no clip and no mask: the square
itself pulls back what has moved too far. π₀, by the trainer's own numerics, stands where the paper has the lagged
inference policy. Strategy samples are kept only if r > V, with the same square.

Source: "LLMs Can Learn to Reason Via Off-Policy RL", arXiv 2602.19362; the form with two temperatures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tao_daemon.domain.report import SAME
from tao_daemon.learning.objectives.objective import Fixed, Sizes, plain_rewards
from tao_daemon.learning.objectives.ratios import sum_by_sequence

if TYPE_CHECKING:
    from torch import Tensor


def policy_temperature(median_tokens: float) -> float:
    """β₂ = clamp(10/T̄, 0.005, 0.5), for completions of T̄ tokens: a nat of change per ten tokens counts as much."""
    return min(max(10.0 / median_tokens, 0.005), 0.5)


@dataclass(frozen=True, slots=True)
class Oapl:
    value_temperature: float
    """β₁: small, V is the best plain reward; large, their mean."""
    policy_temperature: float
    """β₂, reward per nat, one constant for the whole training."""

    def advantages(self, rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
        value = self._value(plain_rewards(rewards, is_plain))
        return [reward - value for reward in rewards]

    def keeps(self, advantage: float, *, plain: bool) -> bool:
        return plain or advantage > SAME

    def scale(self, samples: int, sizes: Sizes) -> float:
        return 1.0 / samples

    def weights_T(self, reference_T: Tensor, behaviour_T: Tensor, owners_T: Tensor) -> Tensor:
        return reference_T.new_ones(reference_T.shape)

    def loss(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        moved_S = sum_by_sequence(now_T - fixed.reference_T, fixed.owners_T)
        return (fixed.scales_S * (self.policy_temperature * moved_S - fixed.advantages_S) ** 2).sum()

    def clipped_T(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        return now_T.new_zeros(now_T.shape).bool()

    def _value(self, plain: Sequence[float]) -> float:
        best = max(plain)  # taken out, so that no exponential overflows
        mean = statistics.fmean(math.exp((reward - best) / self.value_temperature) for reward in plain)
        return best + self.value_temperature * math.log(mean)
