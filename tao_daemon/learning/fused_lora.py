"""A linear layer with LoRA as one operation: the same numbers as peft's, with fewer passes over memory.

    y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ        W, b frozen; A, B learn

peft scales and adds in operations of their own, forward and backward, each over a tensor of the layer's width. Here
they go into the matrix products. Kept for the backward pass: x and x·Aᵀ.

peft's layer → plain LoRA without dropout? → its `forward` replaced → otherwise left as it is
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor


def fuse(model: torch.nn.Module) -> int:
    """Make every plain LoRA layer of a peft model compute in one operation; returns how many there are."""
    layers = [module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    return len(layers)


def _is_plain(layer: Linear) -> bool:
    base: Any = layer.get_base_layer()
    (name, *more) = layer.active_adapters
    return (
        type(base) is torch.nn.Linear
        and not more
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
    )


def _forward(layer: Linear, x: Tensor) -> Tensor:
    base: Any = layer.get_base_layer()
    if layer.disable_adapters:
        y: Tensor = base(x)
        return y
    (name,) = layer.active_adapters
    a, b, scaling = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    rows = x.reshape(-1, x.shape[-1]).to(base.weight.dtype)
    found: Tensor = _LoraLinear.apply(rows, base.weight, base.bias, a, b, scaling)  # type: ignore[no-untyped-call]
    return found.view(*x.shape[:-1], found.shape[-1])


class _LoraLinear(torch.autograd.Function):
    """Shapes: x (T, I), W (O, I), A (R, I), B (O, R), y (T, O). Matrix products in the base's precision."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scaling: float
    ) -> Tensor:
        inner_TR = x_TI @ a_RI.to(x_TI.dtype).T
        y_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
        y_TO.addmm_(inner_TR, b_OR.to(x_TI.dtype).T, alpha=scaling)
        ctx.save_for_backward(x_TI, inner_TR, weight_OI, a_RI, b_OR)
        ctx.scaling = scaling
        return y_TO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x_TI, inner_TR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        (y_TO,) = gradients
        slope_TR = (y_TO @ b_OR.to(y_TO.dtype)).mul_(ctx.scaling)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = (y_TO @ weight_OI).addmm_(slope_TR, a_RI.to(y_TO.dtype))
        a_gradient = (slope_TR.T @ x_TI).to(a_RI.dtype)
        b_gradient = (y_TO.T @ inner_TR).mul_(ctx.scaling).to(b_OR.dtype)
        return x_gradient, None, None, a_gradient, b_gradient, None
