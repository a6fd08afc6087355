"""What needs a person, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tao_daemon.control.models import BufferCounts, Clients, FinishedRound, Fleet, Need, Replica, Rollout
from tao_daemon.control.needs import needs
from tao_daemon.domain.rollout import Hold

READY = Replica(url="http://a", reachable=True, ready=True, problems=[])
AWAY = Replica(url="http://b", reachable=False, ready=False, problems=["connection refused"])
UNSEEN = Replica(url="http://c", reachable=False, ready=False, problems=[])
DRIFTED = Replica(url="http://d", reachable=True, ready=False, problems=["it restarted"])
FAILED = FinishedRound(id=4, outcome="failed", reason="training: no memory")


def rollout(hold: Hold | None = Hold.EVIDENCE, **fields: Any) -> Rollout:
    base: dict[str, Any] = {
        "phase": "canary",
        "adapter": "000007-bbb",
        "round": 7,
        "reason": "accepted",
        "since": 1900.0,
        "started_at": 1800.0,
        "step": 0,
        "traffic_fraction": 0.05,
        "approved_by": None,
        "paused_by": None,
        "hold": "12 of 100 conversations",
        "hold_reason": hold,
        "waits_for_approval": False,
        "shadow": "asks",
        "evidence": {},
        "steps": [],
        "plan": {},
    }
    return Rollout(**{**base, **fields})


def fleet(*replicas: Replica, gateways: int = 1, unready: tuple[str, ...] = ()) -> Fleet:
    return Fleet(gateways=gateways, behind=[], replicas=list(replicas or (READY,)), unready=list(unready))


def found(**parts: Any) -> list[Need]:
    """Of a healthy daemon; keywords replace whole parts."""
    counts = BufferCounts(train=1, train_available=1, held_out=1, held_out_available=1, excluded=0, clusters=2)
    healthy: dict[str, Any] = {
        "rollout": None,
        "fleet": fleet(),
        "clients": [Clients(kind="adapter", requests=1000, failed=2)],
        "buffer": counts,
        "intake": "consuming",
        "runs": False,
        "last_round": None,
    }
    return needs(**{**healthy, **parts})


@pytest.mark.parametrize("intake", ["starting", "consuming", "off"])
def test_a_healthy_daemon_needs_nobody(intake: str) -> None:
    assert found(intake=intake, rollout=rollout()) == []
    assert found(rollout=rollout(None, phase="aborted")) == []


@pytest.mark.parametrize("hold", [Hold.VERIFYING, Hold.FREEZE, Hold.EVIDENCE, None])
def test_a_rollout_that_time_and_traffic_move_needs_nobody(hold: Hold | None) -> None:
    assert found(rollout=rollout(hold), fleet=fleet(gateways=0)) == []


def test_an_approval_comes_first_with_its_command() -> None:
    waiting = rollout(Hold.APPROVAL, phase="shadow", waits_for_approval=True)
    first, *others = found(rollout=waiting, buffer=None, intake="broker_unreachable")
    assert (first.code, first.severity) == ("approval", "decision")
    assert "000007-bbb waits for approval" in first.text
    assert str(first.command).startswith("tao-daemon rollout approve")
    assert [need.code for need in others] == ["buffer_silent", "intake_interrupted"]
    assert "broker unreachable" in others[1].text


def test_a_paused_rollout_names_who_paused_it() -> None:
    (need,) = found(rollout=rollout(Hold.PAUSED, paused_by="ann: freeze"))
    assert (need.code, need.severity) == ("paused", "decision")
    assert "paused by ann: freeze" in need.text
    assert "resume" in str(need.command)


def test_a_rollout_that_no_gateway_reports_on_says_what_is_missing() -> None:
    (none,) = found(rollout=rollout(Hold.NO_GATEWAY), fleet=fleet(gateways=0))
    (mute,) = found(rollout=rollout(Hold.NO_GATEWAY), fleet=fleet(gateways=2))
    assert none.code == mute.code == "no_gateway"
    assert str(none.command).startswith("tao-daemon gateway")
    assert str(mute.command).startswith("tao-daemon token create")


def test_servers_that_are_away_are_named_with_the_reason_and_once() -> None:
    (need,) = found(fleet=fleet(READY, AWAY, UNSEEN, unready=("http://b",)))
    assert need.code == "replica_unreachable"
    assert need.severity == "problem"
    assert need.text == "1 model server is not reachable: http://b (connection refused)"


def test_servers_that_are_not_ready_are_named_with_the_reason() -> None:
    (need,) = found(fleet=fleet(READY, DRIFTED, unready=("http://d", "http://gone")))
    assert need.code == "replica_unready"
    assert "2 model servers are not ready for adapters: http://d (it restarted), http://gone;" in need.text


def test_a_failed_round_is_told_until_the_next_one_runs() -> None:
    (need,) = found(last_round=FAILED)
    assert (need.code, need.command) == ("round_failed", "tao-daemon round show 4")
    assert "training: no memory" in need.text
    assert found(last_round=FAILED, runs=True) == []


def test_failing_requests_come_first_and_say_which_version() -> None:
    met = [Clients(kind="adapter", requests=100, failed=20), Clients(kind="base", requests=20, failed=0)]
    first, *_ = found(clients=met, intake="paused")
    assert first.code == "requests_failing"
    assert "17% of the requests" in first.text
    assert "(adapter 20 of 100)" in first.text


@pytest.mark.parametrize(("requests", "failed"), [(0, 0), (10, 2), (1000, 50)])
def test_few_failures_need_nobody(requests: int, failed: int) -> None:
    assert found(clients=[Clients(kind="adapter", requests=requests, failed=failed)]) == []
