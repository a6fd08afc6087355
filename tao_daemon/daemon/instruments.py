"""Transitions become metrics: the listener that keeps those of rounds, rollouts and routes."""

from __future__ import annotations

from collections.abc import Callable

from tao_daemon.daemon.state import State, Transition
from tao_daemon.domain.events import Event
from tao_daemon.domain.rollout import RolloutPhase
from tao_daemon.telemetry.metrics import Metrics


def record_transition(metrics: Metrics) -> Callable[[Event, Transition], None]:
    """A listener that keeps the metrics of rounds and rollouts."""
    seen: list[State] = [State()]

    def listen(event: Event, transition: Transition) -> None:
        before, after = seen[0], transition.state
        metrics.routes(after.routes)
        metrics.running(after.round)
        if after.last_round and after.last_round != before.last_round:
            metrics.round_ended(after.last_round)
        metrics.rollout(after.rollout)
        if after.rollout and not after.rollout.phase.is_open and _phase(before) is not after.rollout.phase:
            metrics.rollout_ended(after.rollout.phase)
        seen[0] = after

    return listen


def _phase(state: State) -> RolloutPhase | None:
    return state.rollout.phase if state.rollout else None
