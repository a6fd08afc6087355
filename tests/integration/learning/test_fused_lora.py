"""LoRA as one operation against peft's own layer: values, gradients, and which layers it leaves alone."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tao_daemon.learning.fused_lora import fuse


def model(bias: bool = True, dropout: float = 0.0, use_dora: bool = False) -> PeftModel:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 10, bias=bias), nn.SiLU(), nn.Linear(10, 4, bias=bias)).requires_grad_(False)
    config = LoraConfig(r=3, lora_alpha=5, lora_dropout=dropout, target_modules=["0", "2"], use_dora=use_dora)
    found: PeftModel = get_peft_model(base, config).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return found


def run(learner: PeftModel, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    inputs = x.clone().requires_grad_()
    y = learner(inputs)
    learned = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    slopes = torch.autograd.grad((y**2).sum(), [inputs, *learned])
    return y.detach(), slopes[0], list(slopes[1:])


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_pefts(bias: bool) -> None:
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    y, x_slope, slopes = run(model(bias), x)
    fused = model(bias)
    assert fuse(fused) == 2
    found, found_x_slope, found_slopes = run(fused, x)
    torch.testing.assert_close(found, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_x_slope, x_slope, rtol=1e-12, atol=1e-12)
    for own, expected in zip(found_slopes, slopes, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_without_the_adapter_it_is_the_base_layer() -> None:
    x = torch.randn(5, 6, dtype=torch.float64)
    fused = model()
    with fused.disable_adapter():
        expected = fused(x)
    fuse(fused)
    assert not torch.equal(fused(x), expected)
    with fused.disable_adapter():
        assert torch.equal(fused(x), expected)


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"use_dora": True}])
def test_what_is_not_plain_lora_is_left_alone(changes: dict[str, float]) -> None:
    assert fuse(model(**changes)) == 0  # type: ignore[arg-type]
