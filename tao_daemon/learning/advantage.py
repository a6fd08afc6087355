"""Rewards to advantages: which completions teach, in which direction, and what is dropped.

Pure. The baseline of a group is the mean reward of its plain completions, so that what exploration finds is
measured against what the model does by itself.

scored groups → advantages → filters, each counted → learning groups
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tao_daemon.domain.completion import ScoredGroup


class Weighting(StrEnum):
    """How a sample's log-probability ratio is corrected for the difference between sampler and trainer."""

    IMPORTANCE = "importance"
    """Plain samples: truncated importance weights, dropped when sampler and trainer diverge."""
    UNIT = "unit"
    """Strategy samples, drawn from another prompt: weight 1, never masked, kept only when A > 0."""


@dataclass(frozen=True, slots=True)
class LearningSample:
    """One completion that trains. `behaviour_logprobs` are the sampler's, in nats, one per token."""

    token_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    advantage: float
    weighting: Weighting


@dataclass(frozen=True, slots=True)
class LearningGroup:
    """The samples of one plain prompt; at least one of them has an advantage other than 0."""

    prompt_token_ids: tuple[int, ...]
    samples: tuple[LearningSample, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What trains, and how much was left out and why: reason → count, groups and samples apart."""

    groups: tuple[LearningGroup, ...]
    dropped_groups: Mapping[str, int] = field(default_factory=dict)
    dropped_samples: Mapping[str, int] = field(default_factory=dict)
    """Samples left out of groups that train; those of dropped groups are not counted again."""

    @property
    def longest_completion(self) -> int:
        """Tokens in the longest selected completion: L_max of the loss; 0 without groups."""
        return max((len(s.token_ids) for g in self.groups for s in g.samples), default=0)


def advantages(rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
    """A_i = r_i − mean(r over plain samples), for every sample. Raises ValueError without a plain one."""
    plain = [reward for reward, own in zip(rewards, is_plain, strict=True) if own]
    if not plain:
        raise ValueError("a group without plain completions has no baseline; sample at least one")
    baseline = statistics.fmean(plain)
    return [reward - baseline for reward in rewards]


def select(groups: Sequence[ScoredGroup], *, min_spread: float, max_sequence_tokens: int) -> Selection:
    """Choose what trains. The order of groups and of samples is kept.

    A group is dropped when its rewards differ by less than `min_spread` over all samples (`no_spread`), when it
    has no plain sample (`no_plain`), or when no sample with A ≠ 0 is left (`no_signal`). A sample is dropped
    when it is empty, when prompt plus completion exceed `max_sequence_tokens` (`too_long`; its reward still
    counts in the baseline), or when it comes from a strategy and is no better than the plain mean
    (`strategy_not_better`).
    """
    chosen: list[LearningGroup] = []
    dropped_groups: Counter[str] = Counter()
    dropped_samples: Counter[str] = Counter()
    for scored in groups:
        samples, left_out = _samples(scored, max_sequence_tokens)
        if scored.spread < min_spread:
            dropped_groups["no_spread"] += 1
        elif not any(completion.is_plain for completion in scored.group.completions):
            dropped_groups["no_plain"] += 1
        elif not any(sample.advantage for sample in samples):
            dropped_groups["no_signal"] += 1
        else:
            chosen.append(LearningGroup(scored.group.prompt_token_ids, samples))
            dropped_samples += left_out
    return Selection(tuple(chosen), dict(dropped_groups), dict(dropped_samples))


def _samples(scored: ScoredGroup, max_sequence_tokens: int) -> tuple[tuple[LearningSample, ...], Counter[str]]:
    completions = scored.group.completions
    is_plain = [completion.is_plain for completion in completions]
    kept: list[LearningSample] = []
    dropped: Counter[str] = Counter()
    if not any(is_plain):
        return (), dropped
    room = max_sequence_tokens - len(scored.group.prompt_token_ids)
    for completion, advantage in zip(completions, advantages(scored.rewards, is_plain), strict=True):
        if not completion.token_ids:
            dropped["empty"] += 1
        elif len(completion.token_ids) > room:
            dropped["too_long"] += 1
        elif not completion.is_plain and advantage <= 0:
            dropped["strategy_not_better"] += 1
        else:
            weighting = Weighting.IMPORTANCE if completion.is_plain else Weighting.UNIT
            kept.append(LearningSample(completion.token_ids, completion.logprobs, advantage, weighting))
    return tuple(kept), dropped
