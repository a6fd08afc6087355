"""What needs a person, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tao_daemon.cli.headline import needs

Make = Callable[..., dict[str, Any]]


def test_a_healthy_daemon_needs_nobody(status: Make, rollout: Make) -> None:
    assert needs(status()) == []
    assert needs(status(rollout=rollout(phase="canary"), intake="off")) == []
    assert needs(status(rollout=rollout(phase="aborted", waits_for_approval=False))) == []


def test_an_approval_comes_first_with_its_command(status: Make, rollout: Make) -> None:
    found = needs(status(rollout=rollout(waits_for_approval=True), buffer=None, intake="broker_unreachable"))
    assert "000007-bbb waits for approval" in found[0].text
    assert found[0].command.startswith("tao-daemon rollout approve")
    assert len(found) == 3
    assert "broker unreachable" in found[2].text


def test_a_paused_rollout_names_who_paused_it(status: Make, rollout: Make) -> None:
    (found,) = needs(status(rollout=rollout(paused_by="ann: freeze")))
    assert "paused by ann: freeze" in found.text
    assert "resume" in found.command


def test_a_canary_without_gateways_cannot_move(status: Make, rollout: Make) -> None:
    alone = {"gateways": 0, "unready": []}
    (found,) = needs(status(rollout=rollout(phase="canary"), fleet=alone))
    assert "no gateway" in found.text
    counts_nobody = {**rollout()["plan"], "step_conversations": 0}
    assert needs(status(rollout=rollout(phase="canary", plan=counts_nobody), fleet=alone)) == []
    assert needs(status(rollout=rollout(phase="shadow"), fleet=alone)) == []


def test_replicas_and_a_failed_round(status: Make) -> None:
    failed = {"id": 4, "outcome": "failed", "reason": "training: no memory", "ended_at": 1.0}
    found = needs(status(fleet={"gateways": 1, "unready": ["http://a", "http://b"]}, last_round=failed))
    assert "http://a, http://b are not ready" in found[0].text
    assert found[1].command == "tao-daemon round show 4"
    running = {"id": 5, "phase": "sampling", "progress": 0.1}
    assert needs(status(last_round=failed, round=running)) == []
