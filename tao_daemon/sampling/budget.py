"""How many plain completions a prompt gets: more where their rewards differ, no more where they do not. Pure.

A group of equal rewards teaches nothing (its advantages are 0), so the first few tell whether the others are worth
their tokens. What it costs: a prompt that is solved, or failed, only rarely is often given up. Within a group that is
kept the later samples are as independent as the first.

first → all alike: stop | fewer than two known: up to `usual` | they differ: up to `most`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Plain completions per prompt. `first` 0 asks for `usual` at once."""

    first: int
    usual: int
    most: int
    """0: as `usual`."""
    min_spread: float
    """Rewards that differ by less are alike."""

    def opening(self, *, previewed: bool) -> int:
        """How many to ask for before anything is known. `previewed`: rewards can be had on the way."""
        return self.first if self.first and previewed else self.usual

    @property
    def limit(self) -> int:
        return max(self.most, self.usual)

    def more(self, asked: int, rewards: Sequence[tuple[float | None, bool]] | None) -> int:
        """How many more plain completions to ask for, after `asked` of them; 0 ends the prompt.

        `rewards` are those of the whole group so far, each with whether it is a plain completion's: a group teaches as
        soon as any two differ, of other strategies too. Beyond `usual` only plain ones that differ count, as more of
        them is what is asked for. Rewards that are not known (None) decide nothing, and neither does one alone.
        """
        known = [(reward, is_plain) for reward, is_plain in rewards or () if reward is not None]
        if rewards is None or len(known) < max(2, len(rewards)):
            wanted = self.usual
        elif _spread([reward for reward, _ in known]) < self.min_spread:
            wanted = 0
        elif _spread([reward for reward, is_plain in known if is_plain]) >= self.min_spread:
            wanted = self.limit
        else:
            wanted = self.usual
        return max(0, wanted - asked)


def _spread(rewards: Sequence[float]) -> float:
    return max(rewards) - min(rewards) if rewards else 0.0
