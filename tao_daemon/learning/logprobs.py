"""Log-probabilities of chosen tokens from hidden states, without ever holding all logits.

The language-model head is frozen and works token by token, so the gradient of each log-probability with respect
to its hidden state, W[y] − softmax(Wh)·W, is known in the forward pass. It is formed there, chunk by chunk, and
kept instead of T × V logits: the same number of operations as an ordinary backward pass, memory of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**24
"""Logits held at once (64 MiB in float32)."""


def token_logprobs(hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_T: Tensor) -> Tensor:
    """log softmax(h·Wᵀ + b)[target] per token, float32 (or float64), differentiable in `hidden_TD` alone."""
    logprobs_T: Tensor = _TokenLogprobs.apply(hidden_TD, weight_VD, bias_V, targets_T)  # type: ignore[no-untyped-call]
    return logprobs_T


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_T: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        exact = torch.promote_types(hidden_TD.dtype, torch.float32)
        logprobs_T = torch.empty(len(targets_T), dtype=exact, device=hidden_TD.device)
        slopes_TD = torch.empty_like(hidden_TD) if wanted else None
        size = max(1, CHUNK_ELEMENTS // len(weight_VD))
        for start in range(0, len(targets_T), size):
            rows, targets_C = slice(start, start + size), targets_T[start : start + size]
            logits_CV = torch.nn.functional.linear(hidden_TD[rows], weight_VD, bias_V)
            log_softmax_CV = torch.log_softmax(logits_CV, dim=-1, dtype=exact)
            logprobs_T[rows] = log_softmax_CV.gather(1, targets_C[:, None])[:, 0]
            if slopes_TD is not None:
                softmax_CV = log_softmax_CV.exp_().to(weight_VD.dtype)
                slopes_TD[rows] = torch.addmm(weight_VD[targets_C], softmax_CV, weight_VD, alpha=-1.0)
        ctx.save_for_backward(slopes_TD)
        return logprobs_T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (slopes_TD,) = ctx.saved_tensors
        return (gradients[0][:, None] * slopes_TD).to(slopes_TD.dtype), None, None, None
