"""What a completion that was cut off is worth. Pure.

Cut off at the length its client asked for, it is a bad answer: reward 0, whatever the scorers said of the part.
Cut off only by our own sampling limit, it says nothing about the answer the client would get: left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tao_daemon.domain.completion import ScoredGroup

CUT_OFF = "length"
"""OpenAI's finish reason for a completion that met its length limit."""


def client_limit(request: Mapping[str, Any]) -> int | None:
    """The completion length, in tokens, that the client asked for."""
    limits = [request.get(key) for key in ("max_completion_tokens", "max_tokens")]
    return min((n for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0), default=None)


def settle_cut_off(scored: ScoredGroup, request: Mapping[str, Any], sampling_limit: int) -> ScoredGroup:
    """The group with cut-off completions at reward 0, or without them. `sampling_limit` in tokens."""
    limit = client_limit(request)
    by_client = limit is not None and limit <= sampling_limit
    kept = [
        (completion, 0.0 if completion.finish_reason == CUT_OFF else reward)
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True)
        if by_client or completion.finish_reason != CUT_OFF
    ]
    group = replace(scored.group, completions=tuple(completion for completion, _ in kept))
    return replace(scored, group=group, rewards=tuple(reward for _, reward in kept))
