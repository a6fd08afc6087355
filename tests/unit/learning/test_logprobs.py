"""Token log-probabilities: the same values and gradients as a plain log-softmax over all logits."""

from __future__ import annotations

import pytest
import torch

from tao_daemon.learning import logprobs as module
from tao_daemon.learning.logprobs import token_logprobs


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(17, 6, dtype=torch.float64), torch.randn(17, dtype=torch.float64)
    return hidden, weight, bias, torch.randint(0, 17, (11,))


@pytest.mark.parametrize("chunk_elements", [1, 17 * 4, 2**24])
@pytest.mark.parametrize("with_bias", [True, False])
def test_equal_to_log_softmax_whatever_the_chunk(
    head: tuple[torch.Tensor, ...], chunk_elements: int, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk_elements)
    hidden, weight, bias, targets = head
    used = bias if with_bias else None
    expected = torch.nn.functional.linear(hidden, weight, used).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    outer = torch.randn(11, dtype=torch.float64)
    (expected_gradient,) = torch.autograd.grad(expected @ outer, hidden)
    found = token_logprobs(hidden, weight, used, targets)
    (gradient,) = torch.autograd.grad(found @ outer, hidden)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_gradcheck(head: tuple[torch.Tensor, ...]) -> None:
    hidden, weight, bias, targets = head
    assert torch.autograd.gradcheck(lambda h: token_logprobs(h, weight, bias, targets), (hidden,))


def test_bfloat16_inputs_give_float32_logprobs(head: tuple[torch.Tensor, ...]) -> None:
    hidden, weight, _, targets = (tensor.detach() for tensor in head)
    found = token_logprobs(hidden.bfloat16(), weight.bfloat16(), None, targets)
    exact = token_logprobs(hidden, weight, None, targets)
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.1
