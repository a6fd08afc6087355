"""What a policy would earn on prompts that it does not train on, from the completions that its start gave there.

For a group with plain samples y_i ~ π₀ and rewards r_i:

    w_i = min(πθ(y_i)/π₀(y_i), 10)      V = Σ_i w_i·r_i / Σ_i w_i      D = mean over groups of (V − mean_i r_i)

πθ(y) is the product over all tokens of the sequence. D estimates by how much the policy's mean reward exceeds its
start's: self-normalised importance sampling (Swaminathan and Joachims, "The Self-Normalized Estimator for
Counterfactual Learning", NIPS 2015, eq. 9) with truncated weights (Ionides, "Truncated Importance Sampling", 2008).
It is biased towards 0, lies between the group's worst and best reward, and is 0 before the first step. As the policy
moves away from all samples it says less: `weight_share` tells how many samples carry it.

dev groups → log π₀ of every sequence, once → D at every look
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tao_daemon.learning.batching import micro_batches
from tao_daemon.learning.course import Look
from tao_daemon.learning.dev_split import DevGroup
from tao_daemon.learning.packing import Pack, pack_group
from tao_daemon.learning.parallel import Ranks
from tao_daemon.learning.peft_policy import Policy

MAX_WEIGHT = 10.0


class DevSet:
    """This process's share of the dev groups; sums go over all processes."""

    def __init__(self, policy: Policy, groups: Sequence[DevGroup], ranks: Ranks, max_tokens: int) -> None:
        """`policy` is π₀ here."""
        self._policy, self._ranks, self._max_tokens = policy, ranks, max_tokens
        self._count = len(groups)
        self._groups = ranks.mine(groups)
        self._packs = [_packs(group, max_tokens) for group in self._groups]
        self._start = self._sequence_logprobs()

    def look(self, step: int) -> Look:
        """D after so many steps, its standard error over groups, and the mean over groups of the effective sample size,
        (Σw)²/Σw², over the samples.

        Raises ValueError without dev groups.
        """
        if not self._count:
            raise ValueError("there are no dev groups to look at")
        improvement = squares = share = 0.0
        for group, now_S, start_S in zip(self._groups, self._sequence_logprobs(), self._start, strict=True):
            rewards_S = torch.tensor([sample.reward for sample in group.samples], dtype=torch.float64)
            log_S = (now_S - start_S).clamp(max=math.log(MAX_WEIGHT))
            weights_S = log_S.softmax(-1)  # = w/Σw
            gain = float((weights_S * rewards_S).sum() - rewards_S.mean())
            improvement, squares = improvement + gain, squares + gain**2
            share += float(1.0 / (weights_S**2).sum()) / len(rewards_S)
        improvement, squares, share = self._ranks.sum([improvement, squares, share])
        count, mean = self._count, improvement / self._count
        variance = max(0.0, squares - count * mean**2) / max(1, count - 1)
        return Look(step, mean, math.sqrt(variance / count), share / count)

    def _sequence_logprobs(self) -> list[Tensor]:
        """log π(y) per sample of every group, float64 on the CPU."""
        found = [torch.zeros(len(group.samples), dtype=torch.float64) for group in self._groups]
        flat = [(index, pack) for index, packs in enumerate(self._packs) for pack in packs]
        with torch.no_grad():
            for batch in micro_batches([pack.size for _, pack in flat], self._max_tokens):
                now_T = self._policy.logprobs(*(flat[i][1] for i in batch)).double().cpu()
                sizes = [len(flat[i][1].targets) for i in batch]
                for i, part_T in zip(batch, now_T.split_with_sizes(sizes), strict=True):
                    group, pack = flat[i]
                    found[group].index_add_(0, torch.tensor(pack.owners), part_T)
        return found


def _packs(group: DevGroup, max_tokens: int) -> list[Pack]:
    return pack_group(group.prompt_token_ids, [sample.token_ids for sample in group.samples], max_tokens)
