"""Rollouts as the journal tells them: each with its phases, in order, and who or what moved it."""

from __future__ import annotations

from typing import Any

from tao_daemon.registry.journal import Journal


def rollout_history(journal: Journal) -> list[dict[str, Any]]:
    """Every rollout, the latest first. A phase (or canary step) is told once, when it begins."""
    found: list[dict[str, Any]] = []
    seen: tuple[Any, ...] = ()
    for entry in journal.entries():
        state = entry.state_after
        rollout = state.get("rollout")
        if rollout is None:
            continue
        key = (rollout["adapter"], rollout["started_at"])
        if not found or (found[-1]["adapter"], found[-1]["started_at"]) != key:
            found.append(
                {"adapter": key[0], "started_at": key[1], "round": rollout["round"], "steps": [], "outcome": None}
            )
        place = (*key, rollout["phase"], rollout["step"])
        if place == seen:
            continue
        seen = place
        found[-1]["outcome"] = rollout["phase"]
        found[-1]["steps"].append(
            {
                "seq": entry.seq,
                "at": entry.at,
                "phase": rollout["phase"],
                "step": rollout["step"],
                "fraction": state["routes"]["fraction"],
                "actor": entry.actor,
                "note": entry.note,
            }
        )
    return found[::-1]
