"""πθ with its optimizer: forms gradients over all processes, moves, and can be kept and brought back.

AdamW without weight decay. Bringing back is exact: the same numbers follow.

gradient → move → … ; state ↔ load
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.course import Step
from tao_daemon.learning.gradients import Share, backward
from tao_daemon.learning.objectives.objective import Objective
from tao_daemon.learning.parallel import Ranks
from tao_daemon.learning.peft_policy import Policy
from tao_daemon.learning.reference import ReferenceGroup

_WEIGHT, _MEAN, _SQUARE, _MOVES, _KEPT = "weight", "mean", "square", "moves", "kept"


class Learner:
    def __init__(self, policy: Policy, objective: Objective, spec: TrainingSpec, ranks: Ranks) -> None:
        self.policy = policy
        self._objective, self._spec, self._ranks = objective, spec, ranks
        self._optimizer = torch.optim.AdamW(policy.parameters, lr=spec.learning_rate, weight_decay=0.0)
        self._kept: list[Tensor] = []

    def gradient(self, groups: Sequence[ReferenceGroup]) -> Step:
        """The mean over the step's groups, clipped, left in the parameters."""
        own = self._ranks.mine(groups)
        share = backward(self.policy, own, self._objective, of=len(groups), max_tokens=self._spec.micro_batch_tokens)
        self._ranks.sum_gradients(self.policy.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters, self._spec.gradient_clip)
        return self._total(share).step(float(norm))

    def move(self, rate_share: float = 1.0) -> None:
        """One optimizer step along the gradient, at a share of the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate_share * self._spec.learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()

    def keep(self) -> None:
        """These weights are those to return to."""
        self._kept = [parameter.detach().clone() for parameter in self.policy.parameters]

    def return_to_kept(self) -> None:
        """To the weights that were kept last. Not before the first were."""
        with torch.no_grad():
            for parameter, kept in zip(self.policy.parameters, self._kept, strict=True):
                parameter.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """All that decides what follows, by name. A parameter that never had a gradient has moments of 0."""
        found = {}
        for index, parameter in enumerate(self.policy.parameters):
            moments = self._optimizer.state.get(parameter, {})
            found[f"{_WEIGHT}.{index}"] = parameter.detach()
            for name, key in ((_MEAN, "exp_avg"), (_SQUARE, "exp_avg_sq")):
                # No tensor twice: a file of safetensors shares none.
                found[f"{name}.{index}"] = moments[key] if key in moments else torch.zeros_like(parameter)
            found[f"{_MOVES}.{index}"] = moments.get("step", torch.tensor(0.0))
        return found | {f"{_KEPT}.{index}": kept for index, kept in enumerate(self._kept)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises KeyError or RuntimeError when it is of other weights."""
        kept = []
        with torch.no_grad():
            for index, parameter in enumerate(self.policy.parameters):
                parameter.copy_(tensors[f"{_WEIGHT}.{index}"])
                self._optimizer.state[parameter] = {
                    "step": tensors[f"{_MOVES}.{index}"],
                    "exp_avg": tensors[f"{_MEAN}.{index}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"{_SQUARE}.{index}"].to(parameter.device),
                }
                if f"{_KEPT}.{index}" in tensors:
                    kept.append(tensors[f"{_KEPT}.{index}"].to(parameter.device))
        self._kept = kept

    def _total(self, share: Share) -> Share:
        sums = self._ranks.sum([share.loss, share.clipped, share.targets, share.inputs])
        return Share(*sums)
