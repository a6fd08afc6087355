"""What the control API answers: pure functions from state to plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tao_daemon.daemon.machine import State
from tao_daemon.daemon.progress import PhaseProgress
from tao_daemon.domain.ports import BufferStats
from tao_daemon.domain.rollout import RolloutPhase, RolloutState, Routes
from tao_daemon.domain.round import RoundState, RoundSummary


def status(
    state: State,
    *,
    version: str,
    mode: str,
    progress: PhaseProgress | None,
    buffer: BufferStats | None,
    intake: str,
    trigger: str,
) -> dict[str, Any]:
    """GET /v1/status. `buffer` is null when the store does not answer in time."""
    return {
        "version": version,
        "mode": mode,
        "incumbent": {
            "adapter": state.routes.adapter,
            "previous": state.routes.previous,
            "generation": state.routes.generation,
            "since": state.incumbent_since or None,
        },
        "round": _round(state.round, progress),
        "next_round": {"due": state.due, "trigger": trigger},
        "last_round": summary(state.last_round),
        "rollout": _rollout(state.rollout),
        "buffer": asdict(buffer) if buffer else None,
        "intake": intake,
    }


def _round(running: RoundState | None, progress: PhaseProgress | None) -> dict[str, Any] | None:
    if running is None:
        return None
    return {
        "id": running.id,
        "phase": running.phase.value,
        "attempt": running.attempt,
        "reason": running.reason,
        "started_at": running.started_at,
        "incumbent": running.incumbent,
        "candidate": running.candidate,
        "progress": round(progress.fraction, 4) if progress else 0.0,
        "done": progress.done if progress else None,
        "total": progress.total if progress else None,
        "seconds_left": round(progress.seconds_left, 1) if progress and progress.seconds_left is not None else None,
    }


def summary(last: RoundSummary | None) -> dict[str, Any] | None:
    """A finished round in short."""
    return {**asdict(last), "outcome": last.outcome.value} if last else None


def _rollout(rollout: RolloutState | None) -> dict[str, Any] | None:
    if rollout is None:
        return None
    return {
        "phase": rollout.phase.value,
        "adapter": rollout.adapter,
        "round": rollout.round,
        "reason": rollout.reason,
        "since": rollout.since,
        "traffic_fraction": 1.0 if rollout.phase is RolloutPhase.SETTLED else 0.0,
    }


def routes(current: Routes) -> dict[str, Any]:
    """GET /v1/routes."""
    return asdict(current)


def error(code: str, message: str, remedy: str = "") -> dict[str, Any]:
    """The one shape of every error."""
    return {"error": {"code": code, "message": message, "remedy": remedy}}
