"""Importance weights, the mask, the clip and k3, against formulas written out in plain Python."""

from __future__ import annotations

import math
import random

import pytest
import torch

from tao_daemon.learning.objectives.objective import Fixed
from tao_daemon.learning.objectives.ratios import (
    Clip,
    clip_removes_T,
    clipped_surrogate,
    importance_weights,
    k3,
    sum_by_sequence,
)

CLIP = Clip(0.2, 0.28, 4.0)
LENGTHS = (4, 7, 1, 5, 3)


def one_token(reference: float, advantage: float, *, plain: bool = True) -> Fixed:
    return Fixed(
        owners_T=torch.zeros(1, dtype=torch.long),
        reference_T=torch.tensor([reference], dtype=torch.float64),
        weights_T=torch.ones(1, dtype=torch.float64),
        plain_T=torch.tensor([plain]),
        advantages_S=torch.tensor([advantage], dtype=torch.float64),
        scales_S=torch.ones(1, dtype=torch.float64),
    )


@pytest.mark.parametrize("seed", range(5))
def test_weights_equal_the_formula_and_drop_the_diverging_sequence(seed: int) -> None:
    rng = random.Random(seed)
    pi = [[-rng.expovariate(0.7) for _ in range(n)] for n in LENGTHS]
    mu = [[p + rng.gauss(0, 0.8 if sequence == 1 else 0.05) for p in row] for sequence, row in enumerate(pi)]
    expected = []
    for row, sampled in zip(pi, mu, strict=True):
        m = [math.exp(p - q) for p, q in zip(row, sampled, strict=True)]
        divergence = sum(x - math.log(x) - 1 for x in m) / len(m)
        expected += [0.0 if divergence > 0.01 else min(x, 2.0) for x in m]
    owners = torch.tensor([sequence for sequence, n in enumerate(LENGTHS) for _ in range(n)])
    flat = [
        torch.tensor([v for row in rows for v in row], dtype=torch.float64, requires_grad=True) for rows in (pi, mu)
    ]
    found = importance_weights(flat[0], flat[1], owners)
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert not found.requires_grad
    assert not found[owners == 1].any()
    assert found[owners == 0].all()


def test_weights_are_truncated_at_two() -> None:
    reference = torch.zeros(1000, dtype=torch.float64)
    behaviour = reference.clone()
    behaviour[0] = -1.5
    assert importance_weights(reference, behaviour, torch.zeros(1000, dtype=torch.long))[0] == 2.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "plain", "clipped"),
    [
        (1.5, 1.0, True, True),
        (1.5, -1.0, True, False),
        (0.5, -1.0, True, True),
        (0.5, 1.0, True, False),
        (1.2, 1.0, True, False),
        (0.9, -1.0, True, False),
        (1.5, 1.0, False, False),  # what a strategy found has further to go
        (4.9, 1.0, False, False),
        (5.1, 1.0, False, True),
        (0.5, -1.0, False, True),
    ],
)
def test_the_clip_is_said_to_remove_a_gradient_exactly_where_there_is_none(
    ratio: float, advantage: float, plain: bool, clipped: bool
) -> None:
    now = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    fixed = one_token(0.0, advantage, plain=plain)
    assert clip_removes_T(now, fixed, CLIP).tolist() == [clipped]
    clipped_surrogate(now, fixed, CLIP).sum().backward()
    assert now.grad is not None
    assert (now.grad.item() == 0) == clipped


def test_k3_estimates_the_divergence_without_bias() -> None:
    q, p = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.5, 0.3]).double()
    estimate = (q * k3(p.log() - q.log())).sum()
    assert estimate.item() == pytest.approx((q * (q / p).log()).sum().item(), rel=1e-12)
    assert bool((k3(torch.linspace(-3, 3, 13)) >= 0).all())


def test_sums_are_per_sequence() -> None:
    sums = sum_by_sequence(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 0, 2, 1]))
    assert sums.tolist() == [3.0, 8.0, 4.0]
