"""Which groups are kept from the optimizer, to choose the checkpoint by.

Pure. A prompt's side follows from its tokens and the fraction alone, so among rounds that keep a split a prompt that
comes back is on the same side again. A round with too few telling dev groups keeps none and trains on all of its
prompts: what chose a checkpoint in one round may so be trained on in another, never within one.

scored groups → (groups to train on, dev groups)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tao_daemon.domain.completion import ScoredGroup

MIN_GROUPS = 8
"""Fewer say too little about a checkpoint: then none is kept."""


@dataclass(frozen=True, slots=True)
class DevSample:
    token_ids: tuple[int, ...]
    reward: float


@dataclass(frozen=True, slots=True)
class DevGroup:
    """A prompt and its plain samples, of which at least two differ in reward."""

    prompt_token_ids: tuple[int, ...]
    samples: tuple[DevSample, ...]


@dataclass(frozen=True, slots=True)
class Split:
    training: tuple[ScoredGroup, ...]
    dev: tuple[DevGroup, ...]


def split(groups: Sequence[ScoredGroup], fraction: float, *, min_spread: float, max_sequence_tokens: int) -> Split:
    """Keep about `fraction` of the groups, all of them or, when fewer than 8 can tell anything, none.

    A group can tell when the rewards of its plain samples differ by `min_spread` and more. The order is kept.
    """
    kept = [is_dev(scored.group.prompt_token_ids, fraction) for scored in groups]
    found = [_dev_group(scored, max_sequence_tokens) for scored, dev in zip(groups, kept, strict=True) if dev]
    telling = tuple(group for group in found if _spread(group) >= max(min_spread, 1e-9))
    if len(telling) < MIN_GROUPS:
        return Split(tuple(groups), ())
    return Split(tuple(scored for scored, dev in zip(groups, kept, strict=True) if not dev), telling)


def is_dev(prompt_token_ids: Sequence[int], fraction: float) -> bool:
    """Whether the hash of the prompt's tokens falls into the fraction."""
    digest = hashlib.sha256(" ".join(map(str, prompt_token_ids)).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _dev_group(scored: ScoredGroup, max_sequence_tokens: int) -> DevGroup:
    group = scored.group
    room = max_sequence_tokens - len(group.prompt_token_ids)
    samples = [
        DevSample(completion.token_ids, reward)
        for completion, reward in zip(group.completions, scored.rewards, strict=True)
        if completion.is_plain and not completion.extracted and 0 < len(completion.token_ids) <= room
    ]
    return DevGroup(group.prompt_token_ids, tuple(samples))


def _spread(group: DevGroup) -> float:
    rewards = [sample.reward for sample in group.samples]
    return max(rewards) - min(rewards) if rewards else 0.0
