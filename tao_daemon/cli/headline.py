"""What a status comes to: whether its rollout still moves, and what an undo would take back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_open(rollout: Mapping[str, Any] | None) -> bool:
    """Whether the rollout still moves."""
    return rollout is not None and rollout["phase"] in ("staged", "shadow", "canary", "baking")


def undo_ends_canary(status: Mapping[str, Any]) -> bool:
    """Whether the next undo takes back an open canary's share, and leaves what serves."""
    rollout = status["rollout"]
    return rollout is not None and rollout["phase"] == "canary"
