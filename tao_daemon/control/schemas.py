"""From state to what the control API answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tao_daemon.control import models
from tao_daemon.control.needs import needs
from tao_daemon.daemon.keeping import ReplicaStatus
from tao_daemon.daemon.progress import PhaseProgress
from tao_daemon.daemon.state import State
from tao_daemon.domain.ports import BufferStats
from tao_daemon.domain.rollout import RolloutState, Routes, traffic_share
from tao_daemon.domain.round import RoundState
from tao_daemon.domain.traffic import GatewayReport, Outcomes
from tao_daemon.rollout.assessment import numbers
from tao_daemon.rollout.plan import Plan, Step


def status(
    state: State,
    *,
    version: str,
    mode: str,
    progress: PhaseProgress | None,
    buffer: BufferStats | None,
    intake: str,
    intake_lag: int | None,
    trigger: str,
    rollout: models.Rollout | None,
    fleet: models.Fleet,
    clients: Sequence[Outcomes],
) -> models.Status:
    """GET /v1/status. `buffer` is null when the store does not answer in time."""
    routes = state.routes
    counts = models.BufferCounts(**asdict(buffer)) if buffer else None
    last = models.FinishedRound(**asdict(state.last_round)) if state.last_round else None
    runs = state.round is not None
    met = [models.Clients(**asdict(each)) for each in clients]
    return models.Status(
        version=version,
        mode=mode,
        needs=needs(
            rollout=rollout,
            fleet=fleet,
            clients=met,
            buffer=counts,
            intake=intake,
            runs=runs,
            last_round=last,
        ),
        incumbent=models.Incumbent(
            adapter=routes.adapter,
            previous=routes.previous,
            generation=routes.generation,
            since=state.incumbent_since or None,
        ),
        round=_round(state.round, progress),
        next_round=models.NextRound(due=state.due, trigger=trigger),
        last_round=last,
        rollout=rollout,
        returning_to=state.returning.adapter if state.returning else None,
        fleet=fleet,
        clients=met,
        buffer=counts,
        intake=intake,
        intake_lag_records=intake_lag,
    )


def fleet(live: int, behind: Sequence[str], replicas: Sequence[ReplicaStatus], routes: Routes) -> models.Fleet:
    """What stands around the daemon: `live` gateways, those `behind` the routes, and the model servers."""
    return models.Fleet(
        gateways=live,
        behind=list(behind),
        replicas=[
            models.Replica(url=each.url, reachable=each.reachable, ready=each.ready, problems=list(each.problems))
            for each in replicas
        ],
        unready=list(routes.unready),
    )


def _round(running: RoundState | None, progress: PhaseProgress | None) -> models.RunningRound | None:
    if running is None:
        return None
    left = progress.seconds_left if progress else None
    return models.RunningRound(
        id=running.id,
        phase=running.phase.value,
        attempt=running.attempt,
        reason=running.reason,
        started_at=running.started_at,
        incumbent=running.incumbent,
        candidate=running.candidate,
        progress=round(progress.fraction, 4) if progress else 0.0,
        done=progress.done if progress else None,
        total=progress.total if progress else None,
        seconds_left=round(left, 1) if left is not None else None,
        held=progress.held if progress else "",
    )


def rollout(
    found: RolloutState, routes_now: Routes, plan: Plan, *, step: Step | None, waits_for_approval: bool, shadowing: str
) -> models.Rollout:
    """The latest rollout with its evidence. `step` is an open one's next, `shadowing` what the shadow does."""
    return models.Rollout(
        phase=found.phase.value,
        adapter=found.adapter,
        round=found.round,
        reason=found.reason,
        since=found.since,
        started_at=found.started_at,
        step=found.step,
        traffic_fraction=traffic_share(found.phase, routes_now.fraction),
        approved_by=found.approved_by,
        paused_by=found.paused_by,
        hold=step.reason if step else "",
        hold_reason=step.hold if step else None,
        waits_for_approval=waits_for_approval,
        shadow=shadowing,
        evidence={name: round(value, 6) for name, value in numbers(found.evidence, plan.limits).items()},
        steps=[
            {"fraction": each.fraction, "generation": each.generation, **asdict(each.counts)}
            for each in found.evidence.steps
        ],
        plan={
            "fractions": list(plan.fractions),
            "shadow_pairs": plan.limits.min_pairs,
            "margin": plan.limits.margin,
            "step_seconds": plan.step_seconds,
            "step_conversations": plan.step_conversations,
            "bake_seconds": plan.bake_seconds,
            "bake_conversations": plan.bake_conversations,
        },
    )


def gateway(name: str, report: GatewayReport | None) -> dict[str, Any]:
    """One live gateway; `reports` is false before its first report."""
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
