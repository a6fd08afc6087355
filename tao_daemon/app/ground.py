"""What everything in the daemon stands on: stores, connections, boards. Nothing in here acts by itself.

journal → buffer → connections → parts → … → closed in the opposite order
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tao_daemon import __version__
from tao_daemon.app.backends import build_parts, live_pace, open_store
from tao_daemon.app.paths import journal_path, routes_path
from tao_daemon.app.settings import policy_of
from tao_daemon.config import Config
from tao_daemon.daemon.round_parts import Parts
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.daemon.state import Policy
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.ports import PromptStore
from tao_daemon.domain.signals import Emit, Signal
from tao_daemon.registry.journal import Journal
from tao_daemon.sampling.pace import LivePace
from tao_daemon.telemetry.metrics import Metrics

# Below vLLM's own 5 s, so that no request meets a connection that is just being closed.
_KEEP_ALIVE_SECONDS = 3.0


class Signals:
    """An `Emit` for the rooms: hands every signal to all who listen."""

    def __init__(self, *listeners: Emit) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Emit) -> None:
        self._listeners.append(listener)

    def __call__(self, signal: Signal) -> None:
        for listener in self._listeners:
            listener(signal)


class Bell:
    """Rung after every transition: whoever acts on the state looks at once."""

    def __init__(self) -> None:
        self._nudges: list[Callable[[], None]] = []

    def add(self, *nudges: Callable[[], None]) -> None:
        self._nudges += nudges

    def ring(self) -> None:
        for nudge in self._nudges:
            nudge()


@dataclass(frozen=True, slots=True)
class Ground:
    config: Config
    signals: Signals
    bell: Bell
    metrics: Metrics
    journal: Journal
    store: PromptStore
    traffic: TrafficBoard
    pace: LivePace
    parts: Parts
    board: RoutesBoard
    policy: Policy


@asynccontextmanager
async def standing(config: Config) -> AsyncIterator[Ground]:
    """Open everything; close it in the opposite order."""
    metrics = Metrics(__version__, time.time)
    signals = Signals(metrics)
    async with AsyncExitStack() as stack:
        journal = Journal(journal_path(config))
        stack.callback(journal.close)
        store = await asyncio.to_thread(open_store, config, signals)
        stack.push_async_callback(asyncio.to_thread, store.close)
        # No limit of connections here: sampling has its own, and a look at a queue must not wait behind it.
        connector = aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_SECONDS, limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        traffic = TrafficBoard(config.serving.lease_seconds, time.monotonic)
        pace = live_pace(config, traffic, signals)
        parts = build_parts(config, store, session, pace, signals)
        for scorer in {parts.scorer, parts.gate_scorer}:
            stack.push_async_callback(scorer.close)
        yield Ground(
            config=config,
            signals=signals,
            bell=Bell(),
            metrics=metrics,
            journal=journal,
            store=store,
            traffic=traffic,
            pace=pace,
            parts=parts,
            board=RoutesBoard(routes_path(config)),
            policy=policy_of(config),
        )
