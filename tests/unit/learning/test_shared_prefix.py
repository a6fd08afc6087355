"""Attention that cannot be computed here is refused, not computed without what makes it another one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.shared_prefix import shared_prefix_attention


@pytest.mark.parametrize(("more", "kind"), [({"softcap": 50.0}, "capped scores"), ({"s_aux": torch.zeros(2)}, "sinks")])
def test_other_attention_is_refused(more: dict[str, Any], kind: str) -> None:
    heads = torch.ones(1, 2, 3, 4)
    shape = shared_prefix_attention(torch.nn.Identity(), heads, heads, heads, torch.zeros(1, 1, 2, 3))[0].shape
    assert shape == (1, 3, 2, 4)
    with pytest.raises(TrainingError, match=f"attention with {kind} is not supported"):
        shared_prefix_attention(torch.nn.Identity(), heads, heads, heads, torch.zeros(1, 1, 2, 3), **more)
