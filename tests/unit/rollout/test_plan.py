"""Why an open rollout holds, for programs. What moves it is played through in daemon/test_rollouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tao_daemon.domain.rollout import (
    Evidence,
    Hold,
    RolloutMode,
    RolloutPhase,
    RolloutState,
    StepCounts,
    traffic_share,
)
from tao_daemon.domain.traffic import ArmCounts, SplitCounts
from tao_daemon.rollout.plan import FreezeWindow, Move, decide
from tests.machine_plays import AUTO

PLAN = AUTO.plan
ALWAYS = FreezeWindow(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 0, 86_400)


def rollout(phase: RolloutPhase, conversations: int = 0, **fields: object) -> RolloutState:
    counts = SplitCounts(
        ArmCounts(requests=conversations, conversations=conversations),
        ArmCounts(requests=conversations, conversations=conversations),
    )
    found = RolloutState("a", 1, phase, 1, "gain", since=0.0, started_at=0.0)
    return replace(found, evidence=Evidence(steps=(StepCounts(3, 0.1, counts),)), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "sighted", "hold"),
    [
        (rollout(RolloutPhase.STAGED), True, Hold.VERIFYING),
        (rollout(RolloutPhase.STAGED, paused_by="ann: lunch"), True, Hold.PAUSED),
        (rollout(RolloutPhase.SHADOW), False, Hold.EVIDENCE),
        (rollout(RolloutPhase.CANARY), True, Hold.EVIDENCE),
        (rollout(RolloutPhase.CANARY), False, Hold.NO_GATEWAY),
        (rollout(RolloutPhase.BAKING), True, Hold.EVIDENCE),
        (rollout(RolloutPhase.BAKING), False, Hold.NO_GATEWAY),
    ],
)
def test_every_hold_has_its_reason(found: RolloutState, sighted: bool, hold: Hold) -> None:
    step = decide(found, PLAN, 1e6, sighted=sighted)
    assert (step.move, step.hold) == (Move.HOLD, hold)


@pytest.mark.parametrize("phase", [RolloutPhase.CANARY, RolloutPhase.BAKING])
def test_where_no_conversation_is_asked_for_no_gateway_is_missed(phase: RolloutPhase) -> None:
    alone = replace(PLAN, step_conversations=0, bake_conversations=0)
    step = decide(rollout(phase), alone, 1e6, sighted=False)
    assert (step.move, step.hold) == (Move.ADVANCE, None)
    early = decide(rollout(phase), replace(alone, step_seconds=60.0, bake_seconds=60.0), 1.0, sighted=False)
    assert early.hold is Hold.EVIDENCE


def test_a_freeze_is_the_reason_only_of_what_would_move() -> None:
    frozen = replace(PLAN, freeze=(ALWAYS,))
    assert decide(rollout(RolloutPhase.CANARY, 10_000), frozen, 1e6, sighted=True).hold is Hold.FREEZE
    assert decide(rollout(RolloutPhase.CANARY), frozen, 1e6, sighted=True).hold is Hold.EVIDENCE


def test_a_step_that_moves_has_no_hold() -> None:
    step = decide(rollout(RolloutPhase.CANARY, 10_000), PLAN, 1e6, sighted=True)
    assert (step.move, step.hold) == (Move.ADVANCE, None)
    assert PLAN.mode is RolloutMode.AUTO


def test_the_share_follows_the_phase() -> None:
    shares = {phase: traffic_share(phase, 0.25) for phase in RolloutPhase}
    assert shares.pop(RolloutPhase.CANARY) == 0.25
    assert {phase for phase, share in shares.items() if share == 1.0} == {RolloutPhase.BAKING, RolloutPhase.SETTLED}
    assert set(shares.values()) == {0.0, 1.0}
