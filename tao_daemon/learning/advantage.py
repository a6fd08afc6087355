"""Rewards to advantages: which completions teach, in which direction, and what is dropped.

Pure. What a sample is worth is its objective's to say; the baseline is always what the plain completions earned, so
that what exploration finds is measured against what the model does by itself.

scored groups → the objective's advantages → filters, each counted → learning groups
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tao_daemon.domain.completion import Completion, ScoredGroup
from tao_daemon.domain.report import SAME
from tao_daemon.learning.objectives.objective import Objective, Sizes


class Weighting(StrEnum):
    """How a sample's log-probability ratio is corrected for the difference between sampler and trainer."""

    IMPORTANCE = "importance"
    """Plain samples: truncated importance weights, dropped when sampler and trainer diverge."""
    UNIT = "unit"
    """Strategy samples, drawn from another prompt or taken out of a longer answer: weight 1, never masked."""


@dataclass(frozen=True, slots=True)
class LearningSample:
    """One completion that trains."""

    token_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    """The sampler's, in nats, one per token; of no meaning, and maybe empty, where the weighting is UNIT."""
    advantage: float
    """The objective's teaching signal."""
    weighting: Weighting


@dataclass(frozen=True, slots=True)
class PlainSample:
    """What the server sampled from the plain prompt, and how probable it was there."""

    token_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    """In nats, one per token."""


@dataclass(frozen=True, slots=True)
class LearningGroup:
    """The samples of one plain prompt; at least one of them has an advantage other than 0."""

    prompt_token_ids: tuple[int, ...]
    samples: tuple[LearningSample, ...]
    plain: tuple[PlainSample, ...] = ()
    """All of them that fit, those that do not train too: what π₀ says by itself."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What trains, and how much was left out and why: reason → count, groups and samples apart."""

    groups: tuple[LearningGroup, ...]
    objective: Objective
    """What gave the samples their advantages, and makes a loss of them."""
    dropped_groups: Mapping[str, int] = field(default_factory=dict)
    dropped_samples: Mapping[str, int] = field(default_factory=dict)
    """Samples left out of groups that train; those of dropped groups are not counted again."""

    @property
    def sizes(self) -> Sizes:
        """Raises ValueError without groups."""
        lengths = [len(sample.token_ids) for group in self.groups for sample in group.samples]
        if not lengths:
            raise ValueError("nothing was selected; there is nothing to train on")
        return Sizes(max(lengths), sum(lengths) / len(self.groups), sum(lengths) / len(lengths))


def select(
    groups: Sequence[ScoredGroup], objective: Objective, *, min_spread: float, max_sequence_tokens: int
) -> Selection:
    """Choose what trains. The order of groups and of samples is kept.

    A group is dropped when its rewards differ by less than `min_spread` over all samples (`no_spread`), when it
    has no plain sample (`no_plain`), or when no sample with A ≠ 0 is left (`no_signal`). A sample is dropped
    when it is empty, when prompt plus completion exceed `max_sequence_tokens` (`too_long`; its reward still
    counts in the baseline), or when its objective does not keep it: a strategy's that is no better than the plain
    ones (`strategy_not_better`), a plain one that is not among the best (`not_best`).
    """
    chosen: list[LearningGroup] = []
    dropped_groups: Counter[str] = Counter()
    dropped_samples: Counter[str] = Counter()
    for scored in groups:
        samples, left_out = _samples(scored, objective, max_sequence_tokens)
        if scored.spread < min_spread:
            dropped_groups["no_spread"] += 1
        elif not any(completion.is_plain for completion in scored.group.completions):
            dropped_groups["no_plain"] += 1
        elif not any(abs(sample.advantage) > SAME for sample in samples):
            dropped_groups["no_signal"] += 1
        else:
            plain = _plain(scored, max_sequence_tokens)
            chosen.append(LearningGroup(scored.group.prompt_token_ids, samples, plain))
            dropped_samples += left_out
    return Selection(tuple(chosen), objective, dict(dropped_groups), dict(dropped_samples))


def _samples(
    scored: ScoredGroup, objective: Objective, max_sequence_tokens: int
) -> tuple[tuple[LearningSample, ...], Counter[str]]:
    completions = scored.group.completions
    is_plain = [completion.is_plain for completion in completions]
    kept: list[LearningSample] = []
    dropped: Counter[str] = Counter()
    if not any(is_plain):
        return (), dropped
    room = max_sequence_tokens - len(scored.group.prompt_token_ids)
    for completion, advantage in zip(completions, objective.advantages(scored.rewards, is_plain), strict=True):
        if not completion.token_ids:
            dropped["empty"] += 1
        elif len(completion.token_ids) > room:
            dropped["too_long"] += 1
        elif not objective.keeps(advantage, plain=completion.is_plain):
            dropped["not_best" if completion.is_plain else "strategy_not_better"] += 1
        else:
            weighting = _weighting(completion)
            kept.append(LearningSample(completion.token_ids, completion.logprobs, advantage, weighting))
    return tuple(kept), dropped


def _plain(scored: ScoredGroup, max_sequence_tokens: int) -> tuple[PlainSample, ...]:
    room = max_sequence_tokens - len(scored.group.prompt_token_ids)
    sampled = (c for c in scored.group.completions if _weighting(c) is Weighting.IMPORTANCE)
    return tuple(PlainSample(c.token_ids, c.logprobs) for c in sampled if 0 < len(c.token_ids) <= room)


def _weighting(completion: Completion) -> Weighting:
    sampled = completion.is_plain and not completion.extracted
    return Weighting.IMPORTANCE if sampled else Weighting.UNIT
