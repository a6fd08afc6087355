from __future__ import annotations

from dataclasses import replace

import pytest

from tao_daemon.buffer.trigger import TriggerState, decide

READY = TriggerState(
    train_available=600,
    held_out_available=250,
    round_prompts=64,
    gate_min_prompts=200,
    min_new_prompts=500,
    min_interval_seconds=0.0,
    last_round_ended_at=None,
    calendar_due=False,
    round_running=False,
    rollout_open=False,
)


def test_enough_prompts_start_a_round() -> None:
    decision = decide(0.0, READY)
    assert decision.run
    assert decision.reason == "600 fresh training prompts reached min_new_prompts (500)"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round_running": True}, "a round is running"),
        ({"rollout_open": True}, "a rollout is open"),
        ({"train_available": 499}, "499 of 500"),
        ({"min_new_prompts": 0}, "calendar is not due"),
        ({"last_round_ended_at": 950.0, "min_interval_seconds": 60.0}, "10 s to wait"),
        ({"calendar_due": True, "train_available": 63}, "63 fresh training prompts, and a round needs at least 64"),
    ],
)
def test_what_holds_a_round_back(change: dict[str, object], reason: str) -> None:
    decision = decide(1000.0, replace(READY, **change))
    assert not decision.run
    assert reason in decision.reason


def test_the_calendar_starts_one_with_fewer_prompts_than_the_other_trigger() -> None:
    decision = decide(0.0, replace(READY, calendar_due=True, train_available=64))
    assert decision.run
    assert "calendar" in decision.reason


def test_a_low_threshold_lets_a_small_round_start() -> None:
    assert decide(0.0, replace(READY, min_new_prompts=10, train_available=12)).run


def test_the_interval_ends() -> None:
    state = replace(READY, last_round_ended_at=940.0, min_interval_seconds=60.0)
    assert decide(1000.0, state).run
    assert not decide(999.0, state).run


@pytest.mark.parametrize("change", [{}, {"calendar_due": True}])
def test_a_round_that_no_gate_could_judge_does_not_start(change: dict[str, object]) -> None:
    decision = decide(0.0, replace(READY, held_out_available=199, **change))
    assert not decision.run
    assert "199 fresh held-out prompts, and the gate needs 200" in decision.reason
