"""Events for the daemon's machine, in the order in which an undisturbed daemon sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.past import a_round, settling
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import Policy, State
from tao_daemon.domain.commands import Command
from tao_daemon.domain.events import Event, ShadowScored, TrafficMeasured
from tao_daemon.domain.rollout import NewerCandidate, RolloutMode, RolloutPhase, ShadowPair
from tao_daemon.domain.traffic import ArmCounts, SplitCounts
from tao_daemon.rollout.assessment import Limits
from tao_daemon.rollout.plan import Plan

__all__ = ["AUTO", "a_round", "arm", "pairs", "play", "policy", "settling", "traffic"]

LIMITS = Limits(alpha=0.05, margin=0.1, relative_risk=1.25, max_error_fraction=0.05, min_pairs=8)
PLAN = Plan(
    mode=RolloutMode.AUTO,
    newer_candidate=NewerCandidate.SUPERSEDE,
    fractions=(0.1, 0.5),
    step_seconds=10.0,
    step_conversations=20,
    bake_seconds=100.0,
    bake_conversations=50,
    limits=LIMITS,
)
AUTO = Policy(PLAN, max_attempts=3)


def policy(**changes: Any) -> Policy:
    """AUTO with another plan."""
    return replace(AUTO, plan=replace(PLAN, **changes))


def play(policy: Policy, *events: Event, state: State | None = None, now: float = 1.0) -> tuple[State, list[Command]]:
    """The state after the events, and every command on the way."""
    state, commands = state or State(), []
    for event in events:
        transition = advance(state, event, policy, now=now)
        state = transition.state
        commands += transition.commands
    return state, commands


def pairs(adapter: str, count: int, difference: float, phase: RolloutPhase = RolloutPhase.SHADOW) -> ShadowScored:
    return ShadowScored(adapter, phase, tuple(ShadowPair(f"p{n}", difference) for n in range(count)))


def traffic(adapter: str, *steps: tuple[ArmCounts, ArmCounts], slow: float | None = 2.0) -> TrafficMeasured:
    """Counts of (incumbent, candidate) per step."""
    return TrafficMeasured(adapter, tuple(SplitCounts(*step) for step in steps), slow)


def arm(conversations: int, **failures: int) -> ArmCounts:
    return ArmCounts(requests=2 * conversations, conversations=conversations, **failures)
