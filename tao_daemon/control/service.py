"""What the control API sees of a running daemon, and how it asks it to act. Changes nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tao_daemon import __version__
from tao_daemon.control import models, schemas
from tao_daemon.control.scopes import Scope
from tao_daemon.control.tokens import TokenFile
from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.intake_lag import IntakeLag
from tao_daemon.daemon.progress import PhaseProgress, ProgressBoard
from tao_daemon.daemon.rollout_watch import RolloutWatch
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.daemon.state import Policy
from tao_daemon.daemon.supervisor import Supervisor
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.events import Event, TokenRevoked
from tao_daemon.domain.ports import BufferStats, Clock, PromptStore
from tao_daemon.domain.traffic import GatewayReport
from tao_daemon.registry.journal import RequestKey
from tao_daemon.rollout.plan import decide, waits_for_person
from tao_daemon.telemetry.metrics import CONTENT_TYPE, Metrics

_STATS_SECONDS = 2.0
_SUBMIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Service:
    """The running daemon."""

    supervisor: Supervisor
    board: RoutesBoard
    progress: ProgressBoard
    intake_lag: IntakeLag
    store: PromptStore
    traffic: TrafficBoard
    watch: RolloutWatch
    keeper: FleetKeeper
    tokens: TokenFile
    metrics: Metrics
    policy: Policy
    clock: Clock
    intake_state: Callable[[], str]
    trigger_reason: Callable[[], str]
    _issuing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Between looking whether a name is taken and taking it."""

    async def status(self) -> models.Status:
        buffer = await self.stats()
        state = self.supervisor.state
        live, behind = self.traffic.live, self.traffic.behind(state.routes.generation)
        return schemas.status(
            state,
            version=__version__,
            mode=self.policy.plan.mode.value,
            progress=self.running(),
            buffer=buffer,
            intake=self.intake_state(),
            intake_lag=self.intake_lag.records,
            trigger=self.trigger_reason(),
            rollout=self.rollout(),
            fleet=schemas.fleet(len(live), behind, self.keeper.report(), state.routes),
            clients=self.traffic.outcomes(),
        )

    def running(self) -> PhaseProgress | None:
        """How far the running phase is."""
        running = self.supervisor.state.round
        return self.progress.current(running.id, running.phase) if running else None

    def rollout(self) -> models.Rollout | None:
        """The latest rollout with its evidence, and why it does not move."""
        state, plan = self.supervisor.state, self.policy.plan
        found = state.rollout
        if found is None:
            return None
        if not found.phase.is_open:
            return schemas.rollout(found, state.routes, plan, step=None, waits_for_approval=False, shadowing="")
        return schemas.rollout(
            found,
            state.routes,
            plan,
            step=decide(found, plan, self.clock(), sighted=self.traffic.sighted),
            waits_for_approval=waits_for_person(found, plan),
            shadowing=self.watch.shadowing,
        )

    def gateways(self) -> list[dict[str, Any]]:
        return [schemas.gateway(name, report) for name, report in sorted(self.traffic.live.items())]

    def replicas(self) -> list[dict[str, Any]]:
        return [asdict(replica) for replica in self.keeper.report()]

    async def buffer(self) -> models.Buffer:
        stats = await self.stats()
        counts = models.BufferCounts(**asdict(stats)) if stats else None
        return models.Buffer(stats=counts, intake=self.intake_state(), details=await self._details())

    async def stats(self) -> BufferStats | None:
        """None when the store does not answer in time."""
        try:
            async with asyncio.timeout(_STATS_SECONDS):
                return await self.store.stats()
        except (TimeoutError, PromptStoreError):
            return None

    async def submit(
        self, event: Event, expected_generation: int | None = None, request: RequestKey | None = None
    ) -> models.Done:
        """Journal and act. Raises TimeoutError when the daemon does not take it in time."""
        async with asyncio.timeout(_SUBMIT_SECONDS):
            receipt = await self.supervisor.submit(event, expected_generation, request)
        return models.Done(**asdict(receipt))

    async def issue_token(self, asked: models.AskedToken, actor: str) -> models.NewToken:
        """Journaled first. Raises TokenError, and ConfigError when the token cannot be kept."""
        async with self._issuing:
            issued, token, secret = self.tokens.draft(
                asked.name, asked.scopes, asked.days, self.clock(), actor, asked.reason
            )
            await self.submit(issued)
            self.tokens.add(token)
        return models.NewToken(id=token.id, token=secret)

    async def revoke_token(self, token_id: str, actor: str, reason: str) -> models.Done:
        """Ended first: what the journal calls revoked opens nothing, whatever fails in between.

        Raises TokenError for an id that was never issued, ConfigError when it cannot be ended.
        """
        token = self.tokens.find(token_id)
        self.tokens.revoke(token_id, self.clock())
        return await self.submit(TokenRevoked(token.id, token.name, actor, reason))

    def reported(self, report: GatewayReport) -> None:
        if self.traffic.hear(report):
            self.keeper.nudge()

    def not_ready(self) -> str | None:
        """Why the daemon is not ready, or None."""
        return None if self.board.current else "the routes are not published yet"

    async def exposition(self) -> tuple[bytes, str]:
        """What Prometheus scrapes, and its content type."""
        if stats := await self.stats():
            self.metrics.buffer(stats)
        return self.metrics.exposition(), CONTENT_TYPE

    async def _details(self) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(_STATS_SECONDS):
                return asdict(await self.store.details())
        except (TimeoutError, PromptStoreError):
            return None


def scope_names(scopes: frozenset[Scope]) -> list[Scope]:
    """In the order of their definition."""
    return [scope for scope in Scope if scope in scopes]
