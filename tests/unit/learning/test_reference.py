"""What the reference pass measures, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.objectives.objective import Fixed
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.reference import ReferenceGroup, ReferencePack, check_reference, measured


def group(mismatch: list[float], *, plain: bool = True, weight: float = 1.0, advantage: float = 1.0) -> ReferenceGroup:
    """One completion with so many nats between server and trainer at each of its tokens."""
    (pack,) = pack_group((1,), [(7,) * len(mismatch)], max_tokens=64)
    zeros_T = torch.zeros(len(mismatch))
    fixed = Fixed(
        owners_T=zeros_T.long(),
        reference_T=zeros_T,
        weights_T=zeros_T + weight,
        plain_T=torch.full((len(mismatch),), plain),
        advantages_S=torch.tensor([advantage]),
        scales_S=torch.ones(1),
    )
    return ReferenceGroup((ReferencePack(pack, fixed, torch.tensor(mismatch)),))


def test_the_mismatch_is_the_mean_over_plain_tokens() -> None:
    found = measured([group([0.1, 0.3, 0.2]), group([0.6]), group([0.0] * 5, plain=False)])
    assert found == {"mismatch": pytest.approx(0.3), "masked_sequences": 0.0, "plain_tokens": 4.0}
    assert measured([group([0.0], plain=False)])["mismatch"] == 0.0


def test_sequences_that_the_mask_takes_out_are_counted() -> None:
    assert measured([group([0.9, 0.9], weight=0.0), group([0.1])])["masked_sequences"] == 1.0


def test_measuring_refuses_nothing_and_checking_says_what_is_wrong() -> None:
    def checked(*groups: ReferenceGroup) -> None:
        check_reference(groups, measured(groups), 0.2)

    checked(group([0.2]), group([0.1], weight=0.0))
    with pytest.raises(TrainingError, match="not finite"):
        checked(group([math.nan]))
    with pytest.raises(TrainingError, match=r"differ by 0\.210 nats per token, training.max_mismatch is 0\.2"):
        checked(group([0.21]))
    with pytest.raises(TrainingError, match="all 1 plain sequences diverge"):
        checked(group([0.1], weight=0.0))
