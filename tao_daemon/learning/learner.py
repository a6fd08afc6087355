"""πθ with its optimizer: forms gradients over all processes, moves, and can be kept and brought back.

AdamW without weight decay at a constant rate. Bringing back is exact: the same numbers follow.

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

_WEIGHT, _MEAN, _SQUARE, _BEST = "weight", "mean", "square", "best"


class Learner:
    def __init__(self, policy: Policy, objective: Objective, spec: TrainingSpec, ranks: Ranks) -> None:
        self.policy = policy
        self._objective, self._spec, self._ranks = objective, spec, ranks
        self._optimizer = torch.optim.AdamW(policy.parameters, lr=spec.learning_rate, weight_decay=0.0)
        self._best: list[Tensor] = []

    def gradient(self, groups: Sequence[ReferenceGroup]) -> Step:
        """The mean over the step's groups, clipped, left in the parameters."""
        own = self._ranks.mine(groups)
        share = backward(self.policy, own, self._objective, of=len(groups), max_tokens=self._spec.micro_batch_tokens)
        self._ranks.sum_gradients(self.policy.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters, self._spec.gradient_clip)
        return self._total(share).step(float(norm))

    def move(self) -> None:
        """One optimizer step along the gradient."""
        self._optimizer.step()
        self.forget_gradient()

    def forget_gradient(self) -> None:
        self._optimizer.zero_grad()

    def mark_best(self) -> None:
        """These weights are the best so far."""
        self._best = [parameter.detach().clone() for parameter in self.policy.parameters]

    def return_to_best(self) -> None:
        """To the weights of the latest mark; without one nothing changes."""
        with torch.no_grad():
            for parameter, best in zip(self.policy.parameters, self._best, strict=bool(self._best)):
                parameter.copy_(best)

    def state(self) -> dict[str, Tensor]:
        """All that decides what follows, by name. Not before the first step."""
        found = {}
        for index, parameter in enumerate(self.policy.parameters):
            moments = self._optimizer.state[parameter]
            found[f"{_WEIGHT}.{index}"] = parameter.detach()
            found[f"{_MEAN}.{index}"] = moments["exp_avg"]
            found[f"{_SQUARE}.{index}"] = moments["exp_avg_sq"]
        return found | {f"{_BEST}.{index}": best for index, best in enumerate(self._best)}

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """The state after so many steps. Raises KeyError or RuntimeError when it is of other weights."""
        best = []
        with torch.no_grad():
            for index, parameter in enumerate(self.policy.parameters):
                parameter.copy_(tensors[f"{_WEIGHT}.{index}"])
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(steps)),
                    "exp_avg": tensors[f"{_MEAN}.{index}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"{_SQUARE}.{index}"].to(parameter.device),
                }
                if f"{_BEST}.{index}" in tensors:
                    best.append(tensors[f"{_BEST}.{index}"].to(parameter.device))
        self._best = best

    def _total(self, share: Share) -> Share:
        sums = self._ranks.sum([share.loss, share.kl, share.clipped, share.plain_tokens, share.targets, share.inputs])
        return Share(*sums)
