"""How far a candidate went from the base model, as numbers that a verdict takes. Pure.

What is compared are answers sampled at temperature 1, of candidate and base to the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from tao_daemon.domain.completion import CompletionGroup
from tao_daemon.domain.ports import Divergence
from tao_daemon.evaluation.statistics import ratio_of_means


def distance(
    divergence: Divergence, candidate: Sequence[CompletionGroup], base: Sequence[CompletionGroup]
) -> Mapping[str, float]:
    """kl_to_base and kl_to_start in nats per answer; kl_to_base_per_token and entropy in nats per token; where both
    answered at least two of the prompts, length_ratio_to_base with its lower 95 % bound."""
    numbers = {
        "kl_to_base": divergence.from_base,
        "kl_to_start": divergence.from_start,
        "kl_to_base_per_token": divergence.from_base * divergence.answers / max(divergence.tokens, 1),
        "entropy": divergence.entropy,
    }
    lengths = {group.prompt_id: _tokens(group) for group in base}
    both = [(_tokens(group), lengths[group.prompt_id]) for group in candidate if group.prompt_id in lengths]
    if len(both) > 1:
        ratio, interval = ratio_of_means(
            [new for new, _ in both], [max(old, 1.0) for _, old in both], confidence=0.95, resamples=2000, seed=0
        )
        numbers |= {"length_ratio_to_base": ratio, "length_ratio_to_base_low": interval.low}
    return numbers


def _tokens(group: CompletionGroup) -> float:
    return fmean(len(completion.token_ids) for completion in group.completions)
