"""What a task is: prompts from a seed, a truth that training never sees, and the configuration a user would write.

Pure. The splits of a task are disjoint by construction: each draws its names, numbers and subjects from a share of its
own of every pool, so that no text, and no value within a text, is in two splits.

seed → items of a split → requests (to the model), gold answers (to labelled fine-tuning), truth (to the report)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from tao_daemon.config.sampling import Strategy
from tao_daemon.config.scorers import ScorerConfig
from tao_daemon.domain.prompt import Prompt, Source

T = TypeVar("T")

_MAX_REPEATS = 1000
"""Draws in a row without anything new: the pools are too small."""


class Split(Enum):
    """What items are for; the value is the remainder that chooses a split's share of a pool."""

    TRAIN = (0, 1)
    DEV = (2,)
    """Chooses hyperparameters and checkpoints, for every column."""
    HELD_OUT = (3,)
    """Only for the score that is reported."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with what only the report, and fine-tuning on labels, may know."""

    request: Mapping[str, Any]
    gold: str
    """A right answer, as a person who labels would write it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What `Task.truth` needs."""

    @property
    def text(self) -> str:
        return str(self.request["messages"][-1]["content"])


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    title: str
    what: str
    """One sentence for the report."""
    max_tokens: int
    draw: Callable[[random.Random, Split], Item]
    truth: Callable[[Item, str], float]
    """How right an answer is, in [0, 1]; never used in training."""
    scorers: tuple[ScorerConfig, ...]
    strategies: tuple[Strategy, ...]
    reward_is: str
    """How the reward differs from the truth, for the report."""

    def items(self, split: Split, seed: int, count: int, *, first: int = 0) -> list[Item]:
        """Items `first` to `first + count` of a split: distinct, the same for the same seed."""
        rng = random.Random(f"{self.name}/{split.name}/{seed}")
        found: dict[str, Item] = {}
        repeats = 0
        while len(found) < first + count:
            size = len(found)
            item = self.draw(rng, split)
            found.setdefault(item.text, item)
            repeats = repeats + 1 if len(found) == size else 0
            if repeats == _MAX_REPEATS:
                raise ValueError(f"task {self.name} has only {size} distinct prompts in {split.name}; ask for fewer")
        return list(found.values())[first:]

    def prompts(self, split: Split, seed: int, items: Sequence[Item], *, first: int = 0) -> list[Prompt]:
        """The items as the daemon knows prompts."""
        sources = [Source(f"bench.{self.name}.{split.name}.{seed}", 0, first + n) for n in range(len(items))]
        return [Prompt(s.prompt_id, item.request, s, 0.0) for s, item in zip(sources, items, strict=True)]


def share(pool: Sequence[T], split: Split) -> list[T]:
    """The split's own part of a pool."""
    return [each for place, each in enumerate(pool) if place % 4 in split.value]


def chat(system: str, user: str, max_tokens: int) -> dict[str, Any]:
    """An OpenAI chat request."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"messages": messages, "max_tokens": max_tokens}
