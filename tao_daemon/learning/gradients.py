"""The gradient of a step's groups, micro-batch by micro-batch, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tao_daemon.learning.batching import micro_batches
from tao_daemon.learning.course import Step
from tao_daemon.learning.objectives.objective import Fixed, Objective
from tao_daemon.learning.peft_policy import Policy
from tao_daemon.learning.reference import ReferenceGroup, merged


@dataclass(frozen=True, slots=True)
class Share:
    """What some of a step's groups add to it: every field is a sum, so that shares of several processes add up."""

    loss: float = 0.0
    clipped: float = 0.0
    targets: float = 0.0
    inputs: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(
            self.loss + other.loss,
            self.clipped + other.clipped,
            self.targets + other.targets,
            self.inputs + other.inputs,
        )

    def step(self, gradient_norm: float) -> Step:
        """The whole step, when this is the sum of all its shares."""
        return Step(
            loss=self.loss,
            gradient_norm=gradient_norm,
            clipped=self.clipped / max(self.targets, 1.0),
            tokens=int(self.inputs),
        )


def backward(
    policy: Policy, groups: Sequence[ReferenceGroup], objective: Objective, *, of: int, max_tokens: int
) -> Share:
    """Add the gradient of Σ loss(group)/`of` to the parameters, unclipped. `of`: groups of the step, everywhere."""
    packs = [pack for group in groups for pack in group.packs]
    total = Share()
    for batch in micro_batches([pack.pack.size for pack in packs], max_tokens):
        fixed = merged([packs[index].fixed for index in batch])
        now_T = policy.logprobs(*(packs[index].pack for index in batch))
        loss = objective.loss(now_T, fixed) / of
        loss.backward()  # type: ignore[no-untyped-call]
        inputs = sum(len(packs[index].pack.input_ids) for index in batch)
        total += _share(objective, loss.detach(), now_T.detach(), fixed, inputs)
    return total


def _share(objective: Objective, loss: Tensor, now_T: Tensor, fixed: Fixed, inputs: int) -> Share:
    return Share(
        loss=float(loss),
        clipped=float(objective.clipped_T(now_T, fixed).sum()),
        targets=float(len(now_T)),
        inputs=float(inputs),
    )
