"""Attention over packs that share a prompt, without computing what the mask would throw away.

A micro-batch is laid out [prompt | completions], each part padded over the batch. The prompt's queries see the prompt
alone, causally, which needs no mask; the completions' queries see everything that their mask allows. So the mask and
the scores are C·L, not L², and the prompt's half above the diagonal is skipped.

registered under `NAME` → the base model is loaded with it → called by every layer with a mask of C rows
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tao_daemon.domain.errors import TrainingError

NAME = "tao_shared_prefix"


def shared_prefix_attention(
    module: torch.nn.Module,
    query_BHLE: Tensor,
    key_BKLE: Tensor,
    value_BKLE: Tensor,
    attention_mask: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: B batch, H query heads, K key heads, L tokens, E head size; result (B, L, H, E).

    `attention_mask` (B, 1, C, L), additive, for the last C queries; the first L − C are causal among themselves.
    Raises TrainingError for scores that are capped (`softcap`) or share their softmax with sinks (`s_aux`).
    """
    if softcap is not None or s_aux is not None:
        kind = "sinks" if softcap is None else "capped scores"
        raise TrainingError(f"attention with {kind} is not supported; the trainer needs plain attention")
    assert dropout == 0.0, "dropout would make π₀ and πθ differ by more than weights"
    prompt = query_BHLE.shape[2] - attention_mask.shape[2]
    grouped = query_BHLE.shape[1] // key_BKLE.shape[1]
    key_BHLE, value_BHLE = key_BKLE.repeat_interleave(grouped, 1), value_BKLE.repeat_interleave(grouped, 1)
    found = [
        scaled_dot_product_attention(
            query_BHLE[:, :, :prompt], key_BHLE[:, :, :prompt], value_BHLE[:, :, :prompt], is_causal=True, scale=scaling
        )
    ]
    if attention_mask.shape[2]:
        found.append(
            scaled_dot_product_attention(
                query_BHLE[:, :, prompt:], key_BHLE, value_BHLE, attn_mask=attention_mask, scale=scaling
            )
        )
    return torch.cat([part.transpose(1, 2) for part in found], dim=1), None


AttentionInterface.register(NAME, shared_prefix_attention)
