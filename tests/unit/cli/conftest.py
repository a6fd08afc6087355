"""Status documents as the daemon answers them, and how a view looks as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from rich.console import Console

from tao_daemon.cli.output import ASCII, UNICODE
from tao_daemon.cli.tables import View, plain
from tao_daemon.control.models import Status

PLAN = {
    "fractions": [0.05, 0.25],
    "shadow_pairs": 64,
    "step_seconds": 600.0,
    "step_conversations": 100,
    "bake_seconds": 3600.0,
    "bake_conversations": 200,
}
EVIDENCE = {
    "shadow_pairs": 64.0,
    "shadow_pairs_wanted": 64.0,
    "shadow_skipped": 2.0,
    "shadow_candidate_failures": 0.0,
    "shadow_mean_difference": 0.125,
    "evidence_not_inferior": 31.0,
    "threshold_not_inferior": 20.0,
    "evidence_worse": 0.1,
    "threshold_worse": 40.0,
    **{f"evidence_{name}": 0.5 for name in ("errors", "slow", "truncated", "error_rate")},
    **{f"threshold_{name}": 160.0 for name in ("errors", "slow", "truncated", "error_rate")},
    **{f"{arm}_{name}": 0.0 for arm in ("incumbent", "candidate") for name in ("errors", "slow", "truncated")},
    **{f"{arm}_{name}": 0.0 for arm in ("incumbent", "candidate") for name in ("conversations", "requests")},
}


@pytest.fixture
def status() -> Callable[..., dict[str, Any]]:
    """A healthy daemon, as the control API describes it; keywords replace whole parts, and fields of the fleet."""

    def make(**parts: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "version": "0.1.0",
            "mode": "approve",
            "incumbent": {"adapter": "000001-aaa", "previous": None, "generation": 4, "since": 1000.0},
            "round": None,
            "next_round": {"due": None, "trigger": "12 of 500 fresh training prompts"},
            "last_round": None,
            "rollout": None,
            "returning_to": None,
            "needs": [],
            "clients": [{"kind": "adapter", "requests": 120, "failed": 0}],
            "fleet": {
                "gateways": 2,
                "behind": [],
                "unready": [],
                "replicas": [{"url": "http://a", "reachable": True, "ready": True, "problems": []}],
            },
            "buffer": {
                "train": 10,
                "train_available": 9,
                "held_out": 3,
                "held_out_available": 2,
                "excluded": 1,
                "clusters": 13,
            },
            "intake": "consuming",
            "intake_lag_records": 0,
        }
        fleet = {**base["fleet"], **parts.pop("fleet", {})}
        found = Status.model_validate({**base, **parts, "fleet": fleet})
        document: dict[str, Any] = json.loads(found.model_dump_json())
        return document

    return make


@pytest.fixture
def rollout() -> Callable[..., dict[str, Any]]:
    """An open rollout in the shadow; keywords replace fields, `evidence` is merged."""

    def make(evidence: Mapping[str, float] | None = None, **fields: Any) -> dict[str, Any]:
        base = {
            "phase": "shadow",
            "adapter": "000007-bbb",
            "round": 7,
            "reason": "accepted",
            "since": 1900.0,
            "started_at": 1800.0,
            "step": 0,
            "traffic_fraction": 0.0,
            "approved_by": None,
            "paused_by": None,
            "hold": "shadow: 12 of 64 pairs",
            "hold_reason": "evidence",
            "waits_for_approval": False,
            "shadow": "asks",
            "steps": [],
            "plan": PLAN,
        }
        return {**base, "evidence": {**EVIDENCE, **(evidence or {})}, **fields}

    return make


@pytest.fixture
def as_plain() -> Callable[[View], str]:
    """A view as a pipe gets it."""
    return lambda view: plain(view(ASCII))


@pytest.fixture
def as_terminal() -> Callable[..., str]:
    """A view as a terminal of so many columns gets it, escapes included."""

    def draw(view: View, width: int = 100, *, colours: bool = True) -> str:
        console = Console(
            width=width,
            force_terminal=True,
            highlight=False,
            markup=False,
            color_system="standard" if colours else None,
            no_color=not colours,
        )
        with console.capture() as captured:
            console.print(view(UNICODE))
        return captured.get()

    return draw
