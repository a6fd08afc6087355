"""What an algorithm is: how rewards become teaching signals, and how log-probabilities become a loss.

Pure, and loads no torch: tensors are only ever given. Tensor names end in their shape: T completion tokens of a
micro-batch, S sequences (completions) in it. Log-probabilities in nats.

rewards of a group → advantages → which samples train → (π₀ once) `Fixed` → loss at every step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths of all samples of a training, in tokens: constants, the same for every group."""

    longest: int
    """L_max, the longest completion."""
    per_group: float
    """Mean over groups of the tokens of all their samples."""
    per_sample: float
    """Mean over samples."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """All of a micro-batch that stays the same while πθ moves."""

    owners_T: Tensor
    """The sequence, 0 … S − 1, that each token belongs to."""
    reference_T: Tensor
    """log π₀: the policy that training starts from, by the trainer."""
    weights_T: Tensor
    """Corrections for a sampler that is not the trainer; 1 on strategy samples, 0 where the sample is not π₀'s."""
    plain_T: Tensor
    """True on tokens that the server sampled from the plain prompt: only those have a μ of meaning, and the clip of
    samples of π₀."""
    advantages_S: Tensor
    scales_S: Tensor
    """`Objective.scale` of each sequence's group."""


class Objective(Protocol):
    """One algorithm with its settings."""

    def advantages(self, rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
        """The teaching signal of every sample of a group. Raises ValueError without a plain sample."""
        ...

    def keeps(self, advantage: float, *, plain: bool) -> bool:
        """Whether a sample with this signal trains."""
        ...

    def scale(self, samples: int, sizes: Sizes) -> float:
        """Factor of a group's loss, for a group of which so many samples train."""
        ...

    def weights_T(self, reference_T: Tensor, behaviour_T: Tensor, owners_T: Tensor) -> Tensor:
        """`Fixed.weights_T`; where there is no behaviour of meaning, `behaviour_T` is `reference_T`."""
        ...

    def loss(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        """A scalar, differentiable in `now_T` = log πθ alone: the sum over the micro-batch's groups of their losses.

        Additive over sequences, so that a group's completions may lie in several micro-batches.
        """
        ...

    def clipped_T(self, now_T: Tensor, fixed: Fixed) -> Tensor:
        """True where the loss has no gradient any more, because πθ has moved far enough from π₀."""
        ...


def plain_rewards(rewards: Sequence[float], is_plain: Sequence[bool]) -> list[float]:
    """The rewards of the plain samples: what the model does by itself. Raises ValueError when there is none."""
    plain = [reward for reward, own in zip(rewards, is_plain, strict=True) if own]
    if not plain:
        raise ValueError("a group without plain completions has no baseline; sample at least one")
    return plain
