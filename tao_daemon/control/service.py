"""What the control API and the console see of a running daemon. Reads state, never changes it by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tao_daemon import __version__
from tao_daemon.control.schemas import status
from tao_daemon.daemon.progress import ProgressBoard
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.daemon.supervisor import Supervisor
from tao_daemon.domain.events import Event
from tao_daemon.domain.ports import AdapterStore, BufferStats, PromptStore
from tao_daemon.domain.rollout import Routes
from tao_daemon.registry.round_archive import RoundArchive
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
        *,
        mode: str,
        intake_state: Callable[[], str],
        trigger_reason: Callable[[], str],
    ) -> None:
        self._supervisor = supervisor
        self._board = board
        self._progress = progress
        self._mode = mode
        self._store = store
        self._archive = archive
        self._adapters = adapters
        self._metrics = metrics
        self._intake_state = intake_state
        self._trigger_reason = trigger_reason

    async def status(self) -> dict[str, Any]:
        state = self._supervisor.state
        running = state.round
        return status(
            state,
            version=__version__,
            mode=self._mode,
            progress=self._progress.current(running.id, running.phase) if running else None,
            buffer=await self._stats(),
            intake=self._intake_state(),
            trigger=self._trigger_reason(),
        )

    async def submit(self, event: Event) -> str:
        """Journal and act; the note of the transition."""
        return (await self._supervisor.submit(event)).note

    async def routes_newer_than(self, generation: int, wait_seconds: float) -> Routes | None:
        return await self._board.newer_than(generation, wait_seconds)

    def not_ready(self) -> str | None:
        return None if self._board.current else "the routes are not published yet"

    async def metrics(self) -> tuple[bytes, str]:
        stats = await self._stats()
        if stats:
            self._metrics.buffer(stats)
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
