"""What the reference pass counts, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.objectives.objective import Fixed
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.reference import ReferenceGroup, ReferencePack, check_reference, counted


def group(tokens: int, *, plain: bool = True, weight: float = 1.0, advantage: float = 1.0) -> ReferenceGroup:
    """One completion."""
    (pack,) = pack_group((1,), [(7,) * tokens], max_tokens=64)
    zeros_T = torch.zeros(tokens)
    fixed = Fixed(
        owners_T=zeros_T.long(),
        reference_T=zeros_T,
        weights_T=zeros_T + weight,
        plain_T=torch.full((tokens,), plain),
        advantages_S=torch.tensor([advantage]),
        scales_S=torch.ones(1),
    )
    return ReferenceGroup((ReferencePack(pack, fixed),))


def test_plain_tokens_and_sequences_that_the_mask_takes_out_are_counted() -> None:
    found = counted([group(3), group(2, weight=0.0), group(5, plain=False)])
    assert found == {"masked_sequences": 1.0, "plain_tokens": 5.0}


def test_what_cannot_be_learned_from_is_refused_with_the_reason() -> None:
    check_reference([group(1), group(1, weight=0.0)], 0.2, 0.2)
    with pytest.raises(TrainingError, match="not finite"):
        check_reference([group(1)], math.nan, 0.2)
    with pytest.raises(TrainingError, match=r"differ by 0\.210 nats per token, training.max_mismatch is 0\.2"):
        check_reference([group(1)], 0.21, 0.2)
    with pytest.raises(TrainingError, match="all 1 plain sequences diverge"):
        check_reference([group(1, weight=0.0)], 0.1, 0.2)
