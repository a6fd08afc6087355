"""How far πθ has gone from π₀, on a few of the round's groups: the same ones from the first look to the last. And how
far π₀ is from what sampled them, before the first step.

k3 over all tokens of plain samples y ~ π₀, whatever their reward and whether they train: an estimate of the mean per
token of KL(π₀‖πθ), in nats. Over the samples that an objective trains on it would be none: RAFT's are the best ones,
which πθ makes likelier.

The groups are drawn from those that train, up to four samples of each, until 64 samples or 7.5 % of the tokens that an
epoch trains on, four groups at the least: at four looks per epoch a tenth of the training's cost, since a token that
trains costs three times a token that is looked at. A round of fewer than about fifty groups pays more.

groups that train → some of them → log π₀, once → mismatch with log μ; nats per token at every look
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.advantage import LearningGroup
from tao_daemon.learning.batching import micro_batches
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.objectives.ratios import k3
from tao_daemon.learning.packing import Pack, pack_group
from tao_daemon.learning.parallel import ALONE, Ranks
from tao_daemon.learning.peft_policy import Policy

SAMPLES_PER_GROUP = 4
MAX_SAMPLES = 64
TOKEN_SHARE = 0.075
MIN_GROUPS = 4


class KlMeter:
    """This process's share of the groups; sums go over all processes."""

    def __init__(
        self, policy: Policy, groups: Sequence[LearningGroup], spec: TrainingSpec, ranks: Ranks = ALONE
    ) -> None:
        """`policy` is π₀ here. Raises TrainingError without a plain sample."""
        chosen = measured_groups(groups, spec.seed)
        if not chosen:
            raise TrainingError(
                "no plain completion of the batch is left to measure the KL on; raise training.max_sequence_tokens"
            )
        self._policy, self._ranks = policy, ranks
        found = [pack for group in ranks.mine(chosen) for pack in _packs(group, spec.micro_batch_tokens)]
        batches = micro_batches([pack.size for pack, _ in found], spec.micro_batch_tokens)
        self._batches = [[found[index][0] for index in batch] for batch in batches]
        self._start = self._logprobs()
        sampled = [[value for index in batch for value in found[index][1]] for batch in batches]
        self.mismatch = self._mean(
            [(start_T - start_T.new_tensor(known)).abs() for start_T, known in zip(self._start, sampled, strict=True)]
        )
        """Mean |log π₀ − log μ| per token, in nats; the same in every process. Not finite when π₀ is none."""

    def nats(self) -> float:
        """Per token; the same in every process. Not finite when πθ is none."""
        return self._mean([k3(now_T - start_T) for now_T, start_T in zip(self._logprobs(), self._start, strict=True)])

    def _mean(self, parts: Sequence[Tensor]) -> float:
        """Over the tokens of all processes."""
        total, tokens = sum(float(part_T.sum(dtype=torch.float64)) for part_T in parts), sum(map(len, parts))
        total, tokens_of_all = self._ranks.sum([total, float(tokens)])
        return total / tokens_of_all

    def _logprobs(self) -> list[Tensor]:
        with torch.no_grad():
            return [self._policy.logprobs(*batch).detach() for batch in self._batches]


def _packs(group: LearningGroup, max_tokens: int) -> list[tuple[Pack, tuple[float, ...]]]:
    """Packs of the samples that are looked at, each with log μ of its targets."""
    shown = group.plain[:SAMPLES_PER_GROUP]
    packs = pack_group(group.prompt_token_ids, [sample.token_ids for sample in shown], max_tokens)
    members = [[shown[index] for index in dict.fromkeys(pack.owners)] for pack in packs]
    return [
        (pack, tuple(value for sample in samples for value in sample.behaviour_logprobs))
        for pack, samples in zip(packs, members, strict=True)
    ]


def measured_groups(groups: Sequence[LearningGroup], seed: int) -> list[LearningGroup]:
    """In an order that follows from the seed alone; empty when no group has a plain sample."""
    room = TOKEN_SHARE * sum(_tokens(group, [s.token_ids for s in group.samples]) for group in groups)
    telling = [group for group in groups if group.plain]
    chosen: list[LearningGroup] = []
    samples = tokens = 0
    for group in random.Random(f"{seed}/kl").sample(telling, len(telling)):
        shown = [sample.token_ids for sample in group.plain[:SAMPLES_PER_GROUP]]
        samples, tokens = samples + len(shown), tokens + _tokens(group, shown)
        if len(chosen) >= MIN_GROUPS and (samples > MAX_SAMPLES or tokens > room):
            break
        chosen.append(group)
    return chosen


def _tokens(group: LearningGroup, completions: Sequence[Sequence[int]]) -> int:
    return len(group.prompt_token_ids) + sum(map(len, completions))
