"""Whether a rollout of a status still moves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_open(rollout: Mapping[str, Any] | None) -> bool:
    """Whether the rollout still moves."""
    return rollout is not None and rollout["phase"] in ("staged", "shadow", "canary", "baking")
