"""What `wait` waits for: reached, not yet, or never any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tao_daemon.cli.conditions import MEANINGS, Condition, begin, check, follow_up, next_round, wants

Make = Callable[..., dict[str, Any]]
READY = {"ready": True, "reason": None}
RUNNING = {
    "id": 5,
    "phase": "sampling",
    "attempt": 1,
    "reason": "asked",
    "started_at": 1000.0,
    "incumbent": None,
    "candidate": None,
    "progress": 0.45,
    "done": None,
    "total": None,
    "seconds_left": None,
}


def ended(number: int, outcome: str) -> dict[str, Any]:
    return {"id": number, "outcome": outcome, "reason": "because"}


def test_every_condition_is_explained() -> None:
    assert set(MEANINGS) == set(Condition)


def test_ready(status: Make) -> None:
    goal = begin(Condition.READY, status(), round=None, rollout=None)
    assert wants(goal, status()) == "/readyz"
    assert check(goal, status(), READY).reached
    assert not check(goal, status(), {"ready": False, "reason": "starting"}).reached
    drifted = check(goal, status(fleet={"gateways": 1, "unready": ["http://a"]}), READY)
    assert not drifted.reached
    assert "http://a" in drifted.text


@pytest.mark.parametrize(
    "parts",
    [{"round": RUNNING}, {"next_round": {"due": "asked", "trigger": ""}}, {"returning_to": "x"}],
)
def test_not_idle(status: Make, parts: dict[str, Any]) -> None:
    goal = begin(Condition.IDLE, status(), round=None, rollout=None)
    assert check(goal, status(), None).reached
    assert not check(goal, status(**parts), None).reached


def test_an_open_rollout_is_not_idle(status: Make, rollout: Make) -> None:
    goal = begin(Condition.IDLE, status(), round=None, rollout=None)
    assert not check(goal, status(rollout=rollout()), None).reached
    assert check(goal, status(rollout=rollout(phase="settled")), None).reached


def test_the_running_round_is_meant_or_else_the_next(status: Make) -> None:
    assert begin(Condition.ACCEPTED, status(round=RUNNING), round=None, rollout=None).round == 5
    assert begin(Condition.ACCEPTED, status(last_round=ended(5, "failed")), round=None, rollout=None).round == 6
    assert begin(Condition.ACCEPTED, status(), round=None, rollout=None).round == 1
    assert begin(Condition.ACCEPTED, status(round=RUNNING), round=2, rollout=None).round == 2
    assert next_round(status(round=RUNNING), running_counts=False) == 6


@pytest.mark.parametrize("outcome", ["accepted", "rejected", "inconclusive", "failed", "cancelled"])
def test_how_a_round_ends(status: Make, outcome: str) -> None:
    for condition in (Condition.ROUND_FINISHED, Condition.ACCEPTED):
        goal = begin(condition, status(round=RUNNING), round=None, rollout=None)
        assert check(goal, status(round=RUNNING), None).text == "round 5 sampling 40 %"
        found = check(goal, status(last_round=ended(5, outcome)), None)
        good = condition is Condition.ROUND_FINISHED or outcome == "accepted"
        assert (found.reached, found.lost) == (good, not good)
        assert found.text == f"round 5 ended {outcome}: because"


def test_an_earlier_end_is_not_that_of_the_round(status: Make) -> None:
    goal = begin(Condition.ROUND_FINISHED, status(last_round=ended(5, "accepted")), round=None, rollout=None)
    found = check(goal, status(last_round=ended(5, "accepted")), None)
    assert not found.reached
    assert "round 6 has not started: 12 of 500" in found.text


def test_a_round_long_past_is_looked_up(status: Make) -> None:
    now = status(last_round=ended(9, "failed"))
    goal = begin(Condition.ACCEPTED, now, round=3, rollout=None)
    assert wants(goal, now) == "/v1/rounds/3"
    assert check(goal, now, {"outcome": "accepted", "outcome_reason": "gain"}).reached
    assert check(goal, now, {"outcome": "rejected"}).lost
    assert check(goal, now, None).lost
    assert wants(goal, status(last_round=ended(3, "failed"))) is None


@pytest.mark.parametrize("phase", ["staged", "shadow", "canary", "baking", "settled"])
@pytest.mark.parametrize("condition", ["shadow", "canary", "baking", "settled"])
def test_a_rollout_comes_to_a_phase_and_past_it(status: Make, rollout: Make, phase: str, condition: str) -> None:
    order = ["staged", "shadow", "canary", "baking", "settled"]
    now = status(rollout=rollout())
    goal = begin(Condition(condition), now, round=None, rollout=None)
    found = check(goal, status(rollout=rollout(phase=phase)), None)
    assert found.reached == (order.index(phase) >= order.index(condition))
    assert not found.lost


@pytest.mark.parametrize("phase", ["aborted", "rolled_back", "superseded"])
def test_what_ended_otherwise_can_no_longer_be_reached(status: Make, rollout: Make, phase: str) -> None:
    for condition in (Condition.SHADOW, Condition.CANARY, Condition.BAKING, Condition.SETTLED):
        goal = begin(condition, status(rollout=rollout()), round=None, rollout=None)
        found = check(goal, status(rollout=rollout(phase=phase, reason="errors: 7 of 7")), None)
        assert found.lost
        assert "errors: 7 of 7" in found.text
    goal = begin(Condition.ENDED, status(rollout=rollout()), round=None, rollout=None)
    assert not check(goal, status(rollout=rollout()), None).reached
    assert check(goal, status(rollout=rollout(phase=phase)), None).reached


def test_what_had_ended_before_is_not_what_is_waited_for(status: Make, rollout: Make) -> None:
    old = status(rollout=rollout(phase="aborted"))
    goal = begin(Condition.SETTLED, old, round=None, rollout=None)
    assert follow_up(goal, old) == goal
    waiting = check(goal, old, None)
    assert not waiting.reached
    assert not waiting.lost
    new = status(rollout=rollout(adapter="000008-ccc", started_at=2500.0))
    goal = follow_up(goal, new)
    assert goal.rollout == "000008-ccc"
    assert check(goal, status(rollout=rollout(adapter="000008-ccc", started_at=2500.0, phase="aborted")), None).lost


def test_settled_already_is_settled_and_nothing_open_has_ended(status: Make, rollout: Make) -> None:
    now = status(rollout=rollout(phase="settled"))
    assert check(begin(Condition.SETTLED, now, round=None, rollout=None), now, None).reached
    assert not check(begin(Condition.CANARY, now, round=None, rollout=None), now, None).reached
    assert check(begin(Condition.ENDED, now, round=None, rollout=None), now, None).reached
    assert check(begin(Condition.ENDED, status(), round=None, rollout=None), status(), None).reached
    assert not check(begin(Condition.SETTLED, status(), round=None, rollout=None), status(), None).reached


@pytest.mark.parametrize(("outcome", "lost"), [("settled", False), ("aborted", True), ("shadow", True)])
def test_a_rollout_by_name_is_looked_up_in_the_past(status: Make, rollout: Make, outcome: str, lost: bool) -> None:
    now = status(rollout=rollout())
    goal = begin(Condition.SETTLED, now, round=None, rollout="000002-old")
    assert wants(goal, now) == "/v1/rollouts"
    past = {"rollouts": [{"adapter": "000002-old", "outcome": outcome, "steps": [{"note": "how it went"}]}]}
    found = check(goal, now, past)
    assert (found.reached, found.lost) == (not lost, lost)
    unknown = check(goal, now, {"rollouts": []})
    assert not unknown.reached
    assert not unknown.lost
