"""RAFT: the likelihood of each group's best completions, nothing else.

    L = −1/(K·T̄) Σ_best Σ_t log πθ

K: best completions of the group that train; T̄: mean tokens per sample that trains, one constant, so that over a
training this is the mean over groups of supervised fine-tuning's loss, and a long answer is not worth more per token
than a short one. The best are all that tie for the group's highest reward, plain or not, and better than its plain
mean. Where the best is empty or too long, the group teaches nothing: the second best is not a substitute.

Source: RAFT, arXiv 2304.06767 (best of K per prompt); ties there are broken by chance, here they share the weight.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tao_daemon.domain.report import SAME
from tao_daemon.learning.objectives.objective import Fixed, Sizes, plain_rewards

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Raft:
    def advantages(self, rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
        """r − mean(plain r) of the best, which the loss does not use beyond its sign; 0 for all others."""
        baseline = statistics.fmean(plain_rewards(rewards, is_plain))
        best = max(rewards)
        return [reward - baseline if reward >= best - SAME else 0.0 for reward in rewards]

    def keeps(self, advantage: float, *, plain: bool) -> bool:
        return advantage > SAME

    def scale(self, samples: int, sizes: Sizes) -> float:
        return 1.0 / (samples * sizes.per_sample)

    def weights_T(self, reference_T: Tensor, behaviour_T: Tensor, owners_T: Tensor) -> Tensor:
        return reference_T.new_ones(reference_T.shape)

    def loss(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        return -(now_T * fixed.scales_S[fixed.owners_T]).sum()

    def clipped_T(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        return now_T.new_zeros(now_T.shape).bool()
