"""The simulated model: a table of logits for the kind of answer, and for the fillers within each kind.

It stands where the trainer has base plus LoRA: log-probabilities of packs, differentiable in its parameters. All
prompts share the table, so what one group teaches holds for all of them, as it does for a style of answering.

table → (draw completions | log-probabilities of packs → steps → another table)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.collapse.kinds import FILLERS, KINDS
from tao_daemon.domain.ports import Divergence
from tao_daemon.learning.packing import Pack

K, F = len(KINDS), len(FILLERS)
_LENGTHS_K = torch.tensor([kind.tokens for kind in KINDS], dtype=torch.float64)
_TRUTH_K = torch.tensor([kind.truth for kind in KINDS], dtype=torch.float64)


class Table:
    """Tokens 0 … K − 1 are kinds, K … K + F − 1 fillers."""

    device = torch.device("cpu")
    dtype = torch.float64
    vocabulary = K + F

    def __init__(self, kinds_K: Tensor, fillers_KF: Tensor) -> None:
        self.parameters = [kinds_K.clone().requires_grad_(True), fillers_KF.clone().requires_grad_(True)]

    @classmethod
    def base(cls) -> Table:
        probabilities_K = torch.tensor([kind.probability for kind in KINDS], dtype=torch.float64)
        return cls(probabilities_K.log(), torch.zeros(K, F, dtype=torch.float64))

    def copy(self) -> Table:
        return Table(*(parameter.detach() for parameter in self.parameters))

    def same(self, other: Table) -> bool:
        """To the bit."""
        return all(torch.equal(mine, its) for mine, its in zip(self.parameters, other.parameters, strict=True))

    def logprobs(self, *packs: Pack) -> Tensor:
        """log π of the packs' targets, as `peft_policy.Policy.logprobs` gives them."""
        states, tokens = [], []
        for pack in packs:
            kind = owner = -1
            for target, of in zip(pack.targets, pack.owners, strict=True):
                kind, first = (target, True) if of != owner else (kind, False)
                owner = of
                states.append(0 if first else 1 + kind)
                tokens.append(target)
        return self._logprobs()[states, tokens]

    def speaker(self) -> Speaker:
        """What draws from the table as it is."""
        logprobs_SV = self._logprobs().detach()
        return Speaker(logprobs_SV.tolist(), logprobs_SV.exp().tolist())

    def shares(self) -> dict[str, float]:
        """Probability of each kind."""
        return {kind.name: float(p) for kind, p in zip(KINDS, self._kinds(), strict=True)}

    @property
    def truth(self) -> float:
        """Probability of a right answer."""
        return float(self._kinds() @ _TRUTH_K)

    @property
    def tokens(self) -> float:
        """Expected length."""
        return float(self._kinds() @ _LENGTHS_K)

    @property
    def entropy(self) -> float:
        """Nats per token."""
        logprobs_SV = self._logprobs().detach()
        each_S = -(logprobs_SV.exp() * logprobs_SV.nan_to_num(neginf=0.0)).sum(-1)
        return float(each_S[0] + self._kinds() @ (each_S[1:] * (_LENGTHS_K - 1))) / self.tokens

    def _kinds(self) -> Tensor:
        return self.parameters[0].detach().softmax(-1)

    def _logprobs(self) -> Tensor:
        """log π(token | state), shape (1 + K) × (K + F); state 0 is the beginning, 1 + k is within kind k."""
        kinds_K, fillers_KF = (parameter.log_softmax(-1) for parameter in self.parameters)
        begin_V = torch.nn.functional.pad(kinds_K, (0, F), value=-torch.inf)
        within_KV = torch.nn.functional.pad(fillers_KF, (K, 0), value=-torch.inf)
        return torch.cat([begin_V[None], within_KV])


@dataclass(frozen=True, slots=True)
class Speaker:
    """A table frozen for sampling: log-probabilities and probabilities, state by token."""

    logprobs: list[list[float]]
    probabilities: list[list[float]]

    def draw(self, rng: random.Random) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Token ids and their log-probabilities."""
        kind = rng.choices(range(K), weights=self.probabilities[0][:K])[0]
        weights = self.probabilities[1 + kind][K:]
        fillers = rng.choices(range(K, K + F), weights=weights, k=KINDS[kind].tokens - 1)
        within = self.logprobs[1 + kind]
        return (kind, *fillers), (self.logprobs[0][kind], *(within[token] for token in fillers))


def divergence(candidate: Table, start: Table, base: Table, *, answers: int, tokens: int) -> Divergence:
    """Exact, where the product measures it on so many sampled answers."""
    return Divergence(_kl(candidate, start), _kl(candidate, base), candidate.entropy, answers, tokens)


def _kl(one: Table, other: Table) -> float:
    """Σ over the tokens of an answer, nats, expected under `one`."""
    parts: Sequence[Tensor] = [
        (a.detach().softmax(-1) * (a.detach().log_softmax(-1) - b.detach().log_softmax(-1))).sum(-1)
        for a, b in zip(one.parameters, other.parameters, strict=True)
    ]
    kinds = one.parameters[0].detach().softmax(-1)
    return float(parts[0] + kinds @ (parts[1] * (_LENGTHS_K - 1)))
