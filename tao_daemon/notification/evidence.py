"""The numbers behind a rollout's move, from its evidence as the journal has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ARMS = ("incumbent", "candidate")
_COUNTED = ("requests", "conversations", "errors", "slow", "truncated")


def numbers(evidence: Mapping[str, Any]) -> dict[str, float]:
    """What was seen, all finite: pairs of the shadow, and what gateways counted per arm over all steps."""
    found: dict[str, float] = {}
    tally = evidence["shadow"]
    if tally["pairs"] or tally["skipped"]:
        found["shadow_pairs"] = tally["pairs"]
        found["shadow_mean_difference"] = round(tally["total"] / tally["pairs"], 4) if tally["pairs"] else 0.0
        found["shadow_candidate_failures"] = tally["candidate_failures"]
        found["shadow_skipped"] = tally["skipped"]
    counted = {
        f"{arm}_{name}": sum(step["counts"][arm][name] for step in evidence["steps"])
        for arm in _ARMS
        for name in _COUNTED
    }
    # A step that begins has counted nothing yet: that is no evidence of nothing.
    return {**found, **counted} if any(counted.values()) else found
