"""Transitions become metrics: the listener that keeps those of rounds, rollouts and routes."""

from __future__ import annotations

from collections.abc import Callable

from tao_daemon.daemon.machine import State, Transition
from tao_daemon.domain.events import Event
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
        if after.rollout and after.rollout != before.rollout and not after.rollout.phase.is_open:
            metrics.rollout_ended(after.rollout)
        seen[0] = after

    return listen
