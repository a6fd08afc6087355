"""What the control API answers: pure functions from state to plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tao_daemon.daemon.progress import PhaseProgress
from tao_daemon.daemon.state import State
from tao_daemon.domain.ports import BufferStats
from tao_daemon.domain.rollout import RolloutPhase, RolloutState, Routes
from tao_daemon.domain.round import RoundState, RoundSummary
from tao_daemon.domain.traffic import GatewayReport
from tao_daemon.rollout.assessment import Limits, numbers


def status(
    state: State,
    *,
    version: str,
    mode: str,
    progress: PhaseProgress | None,
    buffer: BufferStats | None,
    intake: str,
    trigger: str,
    rollout: Mapping[str, Any] | None,
    gateways: int,
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
        "rollout": rollout,
        "returning_to": state.returning.adapter if state.returning else None,
        "fleet": {"gateways": gateways, "unready": list(state.routes.unready)},
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


def rollout(found: RolloutState, routes_now: Routes, limits: Limits, *, hold: str, shadowing: str) -> dict[str, Any]:
    """The latest rollout with its evidence. `hold` says why it does not move, `shadowing` what the shadow does."""
    return {
        "phase": found.phase.value,
        "adapter": found.adapter,
        "round": found.round,
        "reason": found.reason,
        "since": found.since,
        "started_at": found.started_at,
        "step": found.step,
        "traffic_fraction": _traffic_fraction(found, routes_now),
        "approved_by": found.approved_by,
        "paused_by": found.paused_by,
        "hold": hold,
        "shadow": shadowing,
        "evidence": {name: round(value, 6) for name, value in numbers(found.evidence, limits).items()},
        "steps": [
            {"fraction": step.fraction, "generation": step.generation, **asdict(step.counts)}
            for step in found.evidence.steps
        ],
    }


def _traffic_fraction(found: RolloutState, routes_now: Routes) -> float:
    if found.phase is RolloutPhase.CANARY:
        return routes_now.fraction
    return 1.0 if found.phase in (RolloutPhase.BAKING, RolloutPhase.SETTLED) else 0.0


def gateway(name: str, report: GatewayReport | None) -> dict[str, Any]:
    """One live gateway; `reports` is false while it only polls, for lack of a valid token."""
    if report is None:
        return {"gateway": name, "reports": False}
    return {
        "gateway": name,
        "reports": True,
        "generation": report.generation,
        "in_flight": sum(report.in_flight.values()),
        "requests": sum(report.durations),
        "captured": report.captured,
        "capture_dropped": report.capture_dropped,
    }


def error(code: str, message: str, remedy: str = "") -> dict[str, Any]:
    """The one shape of every error."""
    return {"error": {"code": code, "message": message, "remedy": remedy}}
