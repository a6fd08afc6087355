"""What a completion that was cut off is worth. Pure.

Cut off at the length its client asked for, it is a bad answer: reward 0, whatever the scorers said of the part.
Cut off only by our own sampling limit, it says nothing about the answer the client would get: left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tao_daemon.domain.completion import CUT_OFF, ScoredGroup, is_cut_by_client


def settle_cut_off(scored: ScoredGroup, request: Mapping[str, Any], sampling_limit: int) -> ScoredGroup:
    """The group with cut-off completions at reward 0, or without them. `sampling_limit` in tokens."""
    by_client = is_cut_by_client(request, sampling_limit)
    kept = [
        (completion, 0.0 if completion.finish_reason == CUT_OFF else reward)
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True)
        if by_client or completion.finish_reason != CUT_OFF
    ]
    group = replace(scored.group, completions=tuple(completion for completion, _ in kept))
    return replace(scored, group=group, rewards=tuple(reward for _, reward in kept))
