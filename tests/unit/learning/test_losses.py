"""The loss and its gradient against an independent float64 reference written straight from the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tao_daemon.learning.losses import Clip, clipped_fraction, clipped_policy_gradient, importance_weights, k3

CLIP = Clip(0.2, 0.28)
Array = NDArray[np.float64]


def batch(seed: int) -> dict[str, Array]:
    """Five sequences of different lengths; the second one was plainly sampled from something else."""
    rng = np.random.default_rng(seed)
    lengths = [4, 7, 1, 5, 3]
    owners = np.repeat(np.arange(5), lengths)
    reference = -rng.exponential(1.5, len(owners))
    behaviour = reference + rng.normal(0, 0.05, len(owners))
    behaviour[owners == 1] += rng.normal(0, 0.8, 7)
    return {
        "logprobs": reference + rng.normal(0, 0.4, len(owners)),
        "reference": reference,
        "behaviour": behaviour,
        "advantages": rng.uniform(-0.6, 0.6, 5)[owners],
        "owners": owners.astype(np.float64),
    }


def reference_weights(data: dict[str, Array]) -> Array:
    weights = []
    for owner in np.unique(data["owners"]):
        rows = data["owners"] == owner
        m = np.exp(data["reference"][rows] - data["behaviour"][rows])
        divergence = sum(x - math.log(x) - 1 for x in m) / len(m)
        weights += [0.0 if divergence > 0.01 else min(x, 2.0) for x in m]
    return np.array(weights)


def reference_loss(logprobs: Array, data: dict[str, Array], weights: Array) -> float:
    total = 0.0
    for log_new, log_old, a, w in zip(logprobs, data["reference"], data["advantages"], weights, strict=True):
        ratio = math.exp(log_new - log_old)
        total += w * min(ratio * a, min(max(ratio, 0.8), 1.28) * a)
    return -total


def tensors(data: dict[str, Array]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values) for name, values in data.items()}


@pytest.mark.parametrize("seed", range(5))
def test_weights_equal_the_reference_and_drop_the_diverging_sequence(seed: int) -> None:
    data = batch(seed)
    t = tensors(data)
    found = importance_weights(t["reference"], t["behaviour"], t["owners"].long()).numpy()
    np.testing.assert_allclose(found, reference_weights(data), rtol=1e-12)
    assert not found[data["owners"] == 1].any()
    assert found[data["owners"] == 0].all()


def test_weights_are_truncated_at_two() -> None:
    reference = torch.zeros(1000, dtype=torch.float64)
    behaviour = reference.clone()
    behaviour[0] = -1.5
    assert importance_weights(reference, behaviour, torch.zeros(1000, dtype=torch.long))[0] == 2.0


@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradient_equal_the_reference(seed: int) -> None:
    data = batch(seed)
    t = tensors(data)
    weights = reference_weights(data)
    logprobs = t["logprobs"].requires_grad_()
    loss = clipped_policy_gradient(logprobs, t["reference"], t["advantages"], torch.tensor(weights), CLIP)
    assert loss.item() == pytest.approx(reference_loss(data["logprobs"], data, weights), rel=1e-12)

    (gradient,) = torch.autograd.grad(loss, logprobs)
    step = 1e-6
    for row in range(len(weights)):
        shift = np.zeros(len(weights))
        shift[row] = step
        up = reference_loss(data["logprobs"] + shift, data, weights)
        down = reference_loss(data["logprobs"] - shift, data, weights)
        assert gradient[row].item() == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_autograd_agrees_with_finite_differences() -> None:
    t = tensors(batch(11))
    weights = importance_weights(t["reference"], t["behaviour"], t["owners"].long())
    assert torch.autograd.gradcheck(
        lambda logprobs: clipped_policy_gradient(logprobs, t["reference"], t["advantages"], weights, CLIP),
        (t["logprobs"].requires_grad_(),),
    )


def test_at_the_start_the_gradient_is_the_policy_gradient() -> None:
    t = tensors(batch(3))
    logprobs = t["reference"].clone().requires_grad_()
    ones = torch.ones_like(logprobs)
    clipped_policy_gradient(logprobs, t["reference"], t["advantages"], ones, CLIP).backward()
    torch.testing.assert_close(logprobs.grad, -t["advantages"])


def test_no_gradient_flows_into_reference_or_weights() -> None:
    t = tensors(batch(4))
    reference, behaviour = t["reference"].requires_grad_(), t["behaviour"].requires_grad_()
    assert not importance_weights(reference, behaviour, t["owners"].long()).requires_grad


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [(1.5, 1.0, 1.0), (1.5, -1.0, 0.0), (0.5, -1.0, 1.0), (0.5, 1.0, 0.0), (1.2, 1.0, 0.0), (0.9, -1.0, 0.0)],
)
def test_clipped_fraction_counts_tokens_without_gradient(ratio: float, advantage: float, clipped: float) -> None:
    logprobs = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    zero, a = torch.zeros(1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    assert clipped_fraction(logprobs, zero, a, CLIP) == clipped
    clipped_policy_gradient(logprobs, zero, a, torch.ones_like(a), CLIP).backward()
    assert logprobs.grad is not None
    assert (logprobs.grad.item() == 0) == bool(clipped)


def test_k3_estimates_the_divergence_without_bias() -> None:
    q, p = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    estimate = (q * k3(p.log() - q.log())).sum()
    assert estimate.item() == pytest.approx((q * (q / p).log()).sum().item(), rel=1e-12)
    assert bool((k3(torch.linspace(-3, 3, 13)) >= 0).all())
