"""How far a candidate went from the policy it started from, and from the base model, on its own answers.

Over the whole vocabulary at every completion token t, with the candidate π, its start π₀ and the base π_b:

    KL_t(π‖q) = Σ_v π(v|·)·(log π(v|·) − log q(v|·))        H_t = −Σ_v π(v|·)·log π(v|·)

Summed over the tokens of an answer and averaged over answers, Σ_t KL_t is an unbiased estimate of the KL divergence
between whole answers, as the candidate sampled them (the chain rule of relative entropy, Cover and Thomas, theorem
2.5.3), with less variance than sums of log-ratios. In nats, never negative.

base with both adapters → hidden states of a batch under each policy → logits, chunk of tokens by chunk → sums
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import Tensor

from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.ports import Divergence
from tao_daemon.learning.checkpoints import base_digest
from tao_daemon.learning.divergence_contract import DivergenceSpec, SampledAnswer
from tao_daemon.learning.machine_memory import Available, available_bytes, measuring_fit
from tao_daemon.learning.peft_policy import choose_dtype

CHUNK_ELEMENTS = 2**23
"""Logits of one policy held at once (32 MiB in float32); three policies' are, and their log-softmax."""
CANDIDATE, START = "candidate", "start"


@dataclass(frozen=True, slots=True)
class TokenDivergence:
    """Nats per token; T tokens."""

    from_start_T: Tensor
    from_base_T: Tensor
    entropy_T: Tensor


class Policies:
    """The candidate, its start and the base on one set of base weights."""

    def __init__(self, spec: DivergenceSpec) -> None:
        """Raises TrainingError when the base is not the one that the candidate was trained on."""
        digest = base_digest(Path(spec.base_model))
        if digest != spec.base_digest:
            raise TrainingError(
                f"the candidate was trained on base {spec.base_digest}, training.base_model is {digest}; "
                "restore that base model"
            )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = choose_dtype(spec.dtype, self._device)
        base: Any = transformers.AutoModelForCausalLM.from_pretrained(
            spec.base_model, dtype=self._dtype, attn_implementation="sdpa", local_files_only=True, use_safetensors=True
        )
        self._model = PeftModel.from_pretrained(
            base.to(self._device), spec.candidate, adapter_name=CANDIDATE, local_files_only=True
        )
        if spec.start is not None:
            self._model.load_adapter(spec.start, adapter_name=START, local_files_only=True)
        self._model.eval()
        self._starts = spec.start is not None
        causal: Any = self._model.get_base_model()
        self._trunk, head = causal.base_model, causal.get_output_embeddings()
        self._weight_VD = head.weight.detach().float()  # a logit in bfloat16 is off by more than small divergences
        self._bias_V = None if head.bias is None else head.bias.detach().float()
        self.vocabulary = len(self._weight_VD)

    @torch.inference_mode()
    def divergences(self, answers: Sequence[SampledAnswer]) -> list[TokenDivergence]:
        """Of every answer; all are computed in one batch, so they should be of similar length."""
        candidate, base = self._hidden(answers, CANDIDATE), self._hidden(answers, None)
        start = self._hidden(answers, START) if self._starts else base
        return [self._compare(*each) for each in zip(candidate, start, base, strict=True)]

    def _hidden(self, answers: Sequence[SampledAnswer], adapter: str | None) -> list[Tensor]:
        """hidden_TD per answer, at the positions that predict its tokens. Padding is to the right: nothing sees it."""
        rows = [answer.prompt_token_ids + answer.token_ids[:-1] for answer in answers]
        width = max(map(len, rows))
        ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=self._device)
        with self._speaking(adapter), self._precision():
            hidden_BLD = self._trunk(input_ids=ids, use_cache=False).last_hidden_state
        starts = [len(answer.prompt_token_ids) - 1 for answer in answers]
        return [hidden_BLD[i, starts[i] : len(rows[i])] for i in range(len(rows))]

    def _compare(self, candidate_TD: Tensor, start_TD: Tensor, base_TD: Tensor) -> TokenDivergence:
        size = max(1, CHUNK_ELEMENTS // self.vocabulary)
        parts = []
        for first in range(0, len(candidate_TD), size):
            rows = slice(first, first + size)
            log_CV = self._log_softmax(candidate_TD[rows])
            p_CV = log_CV.exp()
            against = [((log_CV - self._log_softmax(other[rows])) * p_CV).sum(-1) for other in (start_TD, base_TD)]
            parts.append((*against, -(p_CV * log_CV).sum(-1)))
        # rounding may leave a divergence of nothing a little below 0
        from_start_T, from_base_T, entropy_T = (torch.cat(part).clamp(min=0.0) for part in zip(*parts, strict=True))
        return TokenDivergence(from_start_T, from_base_T, entropy_T)

    def _log_softmax(self, hidden_CD: Tensor) -> Tensor:
        return torch.log_softmax(torch.nn.functional.linear(hidden_CD.float(), self._weight_VD, self._bias_V), dim=-1)

    def _speaking(self, adapter: str | None) -> AbstractContextManager[Any]:
        if adapter is None:
            return self._model.disable_adapter()
        self._model.set_adapter(adapter)
        return nullcontext()

    def _precision(self) -> AbstractContextManager[Any]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)


def measure(
    spec: DivergenceSpec, answers: Sequence[SampledAnswer], available: Available = available_bytes
) -> Divergence:
    """Means over the answers. Raises TrainingError when there are none, memory is short, or a figure is no number."""
    if not answers:
        raise TrainingError(
            "no answer of the candidate to measure its divergence on: it answered every prompt with nothing, or "
            "gate.divergence_prompts are too few; lower the learning rate of [training] or training.kl_budget, or "
            "raise those"
        )
    sizes = [len(answer.prompt_token_ids) + len(answer.token_ids) for answer in answers]
    limit = min(measuring_fit(spec, sizes, available()).micro_batch_tokens, spec.micro_batch_tokens)
    policies = Policies(spec)
    highest = max(max(answer.prompt_token_ids + answer.token_ids) for answer in answers)
    if highest >= policies.vocabulary:
        raise TrainingError(
            f"the answers hold token {highest}, the base model's vocabulary has {policies.vocabulary}; "
            "set training.base_model to the folder whose weights vLLM serves"
        )
    found = [each for batch in batches(answers, limit) for each in policies.divergences(batch)]
    tokens = sum(len(each.entropy_T) for each in found)
    entropy = sum(float(each.entropy_T.sum(dtype=torch.float64)) for each in found) / tokens
    from_start = math.fsum(float(each.from_start_T.sum(dtype=torch.float64)) for each in found) / len(found)
    from_base = math.fsum(float(each.from_base_T.sum(dtype=torch.float64)) for each in found) / len(found)
    if not all(map(math.isfinite, (from_start, from_base, entropy))):
        raise TrainingError("the candidate gives log-probabilities that are not finite; discard it")
    return Divergence(from_start, from_base, entropy, len(found), tokens)


def batches(answers: Sequence[SampledAnswer], max_tokens: int) -> Iterator[list[SampledAnswer]]:
    """Answers of similar length together, the longest first, at most `max_tokens` padded tokens in a batch of
    several."""

    def size(answer: SampledAnswer) -> int:
        return len(answer.prompt_token_ids) + len(answer.token_ids) - 1

    batch: list[SampledAnswer] = []
    for answer in sorted(answers, key=size, reverse=True):
        if batch and size(batch[0]) * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(answer)
    if batch:
        yield batch
