"""What the control API and the console see of a running daemon. Reads state, never changes it by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from tao_daemon import __version__
from tao_daemon.control import schemas
from tao_daemon.control.history import rollout_history
from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.progress import ProgressBoard
from tao_daemon.daemon.rollout_watch import RolloutWatch
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.daemon.state import Policy
from tao_daemon.daemon.supervisor import Supervisor
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import Event
from tao_daemon.domain.ports import AdapterStore, BufferStats, Clock, PromptStore
from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import GatewayReport
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.rollout.plan import decide
from tao_daemon.telemetry.metrics import CONTENT_TYPE, Metrics

_STATS_SECONDS = 2.0


class Service:
    """The running daemon, as the control API needs it."""

    def __init__(
        self,
        supervisor: Supervisor,
        board: RoutesBoard,
        progress: ProgressBoard,
        store: PromptStore,
        archive: RoundArchive,
        adapters: AdapterStore,
        metrics: Metrics,
        traffic: TrafficBoard,
        watch: RolloutWatch,
        keeper: FleetKeeper,
        journal: Callable[[], Journal],
        *,
        policy: Policy,
        clock: Clock,
        intake_state: Callable[[], str],
        trigger_reason: Callable[[], str],
    ) -> None:
        self._supervisor = supervisor
        self._board = board
        self._progress = progress
        self._traffic = traffic
        self._watch = watch
        self._keeper = keeper
        self._journal = journal
        self._policy = policy
        self._clock = clock
        self._store = store
        self._archive = archive
        self._adapters = adapters
        self._metrics = metrics
        self._intake_state = intake_state
        self._trigger_reason = trigger_reason

    async def status(self) -> dict[str, Any]:
        state = self._supervisor.state
        running = state.round
        return schemas.status(
            state,
            version=__version__,
            mode=self._policy.plan.mode.value,
            progress=self._progress.current(running.id, running.phase) if running else None,
            buffer=await self._stats(),
            intake=self._intake_state(),
            trigger=self._trigger_reason(),
            rollout=self.rollout(),
            gateways=len(self._traffic.live),
        )

    def rollout(self) -> dict[str, Any] | None:
        """The latest rollout with its evidence, and why it does not move."""
        found = self._supervisor.state.rollout
        if found is None:
            return None
        hold = ""
        if found.phase.is_open:
            sighted = any(report for report in self._traffic.live.values())
            hold = decide(found, self._policy.plan, self._clock(), sighted=sighted).reason
        shadowing = self._watch.shadowing if found.phase.is_open else ""
        routes = self._supervisor.state.routes
        return schemas.rollout(found, routes, self._policy.plan.limits, hold=hold, shadowing=shadowing)

    async def rollouts(self) -> list[dict[str, Any]]:
        """Every rollout there was, the latest first, from the journal."""
        return await asyncio.to_thread(self._past_rollouts)

    def _past_rollouts(self) -> list[dict[str, Any]]:
        with closing(self._journal()) as journal:
            return rollout_history(journal)

    def gateways(self) -> list[dict[str, Any]]:
        return [schemas.gateway(name, report) for name, report in sorted(self._traffic.live.items())]

    def replicas(self) -> list[dict[str, Any]]:
        return [asdict(replica) for replica in self._keeper.report()]

    async def submit(self, event: Event, expected_generation: int | None = None) -> tuple[str, bool]:
        """Journal and act; the note of the transition, and whether it was refused."""
        transition = await self._supervisor.submit(event, expected_generation)
        return transition.note, transition.refused

    def polled(self, gateway: str, generation: int, wait_seconds: float) -> None:
        self._traffic.hear_poll(gateway, generation, wait_seconds)

    def reported(self, report: GatewayReport) -> None:
        if self._traffic.hear(report):
            self._keeper.nudge()

    def left(self, gateway: str) -> None:
        self._traffic.leave(gateway)

    async def routes_newer_than(self, generation: int, wait_seconds: float) -> Routes | None:
        return await self._board.newer_than(generation, wait_seconds)

    def not_ready(self) -> str | None:
        return None if self._board.current else "the routes are not published yet"

    async def metrics(self) -> tuple[bytes, str]:
        stats = await self._stats()
        if stats:
            self._metrics.buffer(stats)
        self._metrics.gateways(len(self._traffic.live))
        return self._metrics.exposition(), CONTENT_TYPE

    async def reports(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._archive.reports)

    async def adapters(self) -> list[dict[str, Any]]:
        """Every adapter of the store, oldest first, with its lineage."""
        return await asyncio.to_thread(self._describe_adapters)

    def _describe_adapters(self) -> list[dict[str, Any]]:
        records = [self._adapters.get(name) for name in self._adapters.names()]
        return [
            {"name": r.name, "digest": r.digest, "rank": r.rank, "created_at": r.created_at, **_lineage(asdict(r))}
            for r in records
        ]

    async def _stats(self) -> BufferStats | None:
        try:
            async with asyncio.timeout(_STATS_SECONDS):
                return await self._store.stats()
        except TimeoutError:
            return None


def _lineage(record: dict[str, Any]) -> dict[str, Any]:
    lineage = record["lineage"]
    return {"lineage": {**lineage, "prompt_ids": len(lineage["prompt_ids"])}}
