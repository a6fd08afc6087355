"""The daemon process.

lock → journal → buffer → parts → supervisor, scheduler, watch, keeper, intake, control API → stop in the opposite order
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from tao_daemon import __version__
from tao_daemon.app.backends import build_parts, live_pace, open_store
from tao_daemon.app.paths import journal_path, routes_path
from tao_daemon.app.settings import keeper_settings, policy_of, round_settings, watch_settings
from tao_daemon.app.stopping import give_up, stop_event
from tao_daemon.config import Config
from tao_daemon.control.auth import Authenticator, ensure_token
from tao_daemon.control.http_api import Api, build_app
from tao_daemon.control.http_server import serving
from tao_daemon.control.live import LiveFeed
from tao_daemon.control.records import Records
from tao_daemon.control.service import Service
from tao_daemon.control.tokens import TokenFile
from tao_daemon.daemon.executor import Executor
from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.in_place import InPlaceDelivery
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.daemon.instruments import record_transition
from tao_daemon.daemon.keeping import KeeperParts, desired_of
from tao_daemon.daemon.phases import Parts, RoundWork
from tao_daemon.daemon.progress import ProgressBoard
from tao_daemon.daemon.rollout_watch import RolloutWatch
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.daemon.scheduler import RoundScheduler
from tao_daemon.daemon.supervisor import Supervisor
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import DaemonStarted
from tao_daemon.domain.signals import Emit, Signal
from tao_daemon.intake.kafka_source import KafkaSource
from tao_daemon.registry.journal import Journal
from tao_daemon.telemetry.logs import configure_logging
from tao_daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)
_KEEP_ALIVE_SECONDS = 3.0


async def run_daemon(config: Config) -> None:
    """Run until SIGTERM or SIGINT, then stop within `shutdown_seconds`."""
    configure_logging(config.daemon.log_level)
    stop = stop_event()
    with sole_owner(config.daemon.data_dir):
        async with AsyncExitStack() as stack:
            work = await stack.enter_async_context(_daemon(config))
            stopping = asyncio.create_task(stop.wait())
            waited: list[asyncio.Future[Any]] = [*work, stopping]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            log.info("stopping")
            asyncio.get_running_loop().call_later(config.daemon.shutdown_seconds, give_up)
            for ended in (future for future in work if future.done()):
                ended.result()


@asynccontextmanager
async def _daemon(config: Config) -> AsyncIterator[list[asyncio.Future[None]]]:
    """Everything running; yields what never ends by itself, unless by a bug."""
    metrics, progress = Metrics(__version__), ProgressBoard()
    listeners: list[Emit] = [metrics, progress]

    def emit(signal: Signal) -> None:
        for listener in listeners:
            listener(signal)

    async with AsyncExitStack() as stack:
        journal = Journal(journal_path(config))
        stack.callback(journal.close)
        store = await asyncio.to_thread(open_store, config, emit)
        stack.push_async_callback(asyncio.to_thread, store.close)
        # Below vLLM's own 5 s, so that no request meets a connection that is just being closed.
        connector = aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        traffic = TrafficBoard(config.serving.lease_seconds, time.monotonic)
        pace = live_pace(config, traffic)
        parts = build_parts(config, store, session, pace, emit)
        board = RoutesBoard(routes_path(config))
        policy = policy_of(config)
        supervisor = Supervisor(
            journal,
            policy,
            execute=lambda command: executor.execute(command),
            clock=time.time,
            listeners=[record_transition(metrics), lambda event, transition: nudge()],
        )

        def open_journal() -> Journal:
            """For readers in threads: a connection of their own."""
            return Journal(journal_path(config))

        def nudge() -> None:
            """Whoever acts on the state looks at once."""
            feed.nudge()
            scheduler.nudge()
            keeper.nudge()
            watch.nudge()

        work = RoundWork(parts, round_settings(config), emit=emit, clock=time.time)
        executor = Executor(
            work,
            parts,
            board,
            post=supervisor.post,
            outage_seconds=config.round.outage_seconds,
        )
        stack.push_async_callback(executor.stop)
        scheduler = RoundScheduler(
            config.round,
            store,
            gate_min_prompts=config.gate.min_prompts,
            policy=policy,
            state=lambda: supervisor.state,
            post=supervisor.post,
            clock=time.time,
        )
        listeners.append(scheduler.hear)
        watch = RolloutWatch(
            traffic,
            store,
            parts.sampler,
            parts.scorer,
            watch_settings(config),
            policy=policy,
            state=lambda: supervisor.state,
            post=supervisor.post,
            clock=time.time,
        )
        keeper = FleetKeeper(_keeper_parts(config, parts, traffic, supervisor))
        source = KafkaSource(
            config.kafka, store, max_prompt_bytes=config.buffer.max_prompt_bytes, emit=emit, clock=time.time
        )
        tokens = TokenFile(config.daemon.data_dir)
        service = Service(
            supervisor=supervisor,
            board=board,
            progress=progress,
            store=store,
            traffic=traffic,
            watch=watch,
            keeper=keeper,
            tokens=tokens,
            metrics=metrics,
            policy=policy,
            clock=time.time,
            intake_state=lambda: source.state if config.kafka.enabled else "off",
            trigger_reason=lambda: scheduler.reason,
        )
        feed = LiveFeed(open_journal, service.running)
        listeners.append(feed)
        supervisor.post(DaemonStarted(__version__, config.digest))
        lasting = [supervisor.run(), scheduler.run(), watch.run(), keeper.run(), pace.run()]
        if alias := config.serving.in_place_alias:
            lasting.append(InPlaceDelivery(alias, board, parts.adapters, parts.fleet.flip_in_place).run())
        tasks = [asyncio.create_task(work) for work in lasting]
        stack.push_async_callback(_cancel, tasks)
        running: list[asyncio.Future[None]] = [*tasks, executor.broken]
        if config.kafka.enabled:
            source.start()
            running.append(asyncio.wrap_future(source.finished))
            stack.push_async_callback(asyncio.to_thread, source.stop, config.daemon.shutdown_seconds / 2)
        api = Api(
            service=service,
            records=Records(parts.archive, parts.adapters, store, open_journal),
            feed=feed,
            authenticator=Authenticator(ensure_token(config.daemon.data_dir), tokens, time.time),
            observe=lambda method, route, status, seconds: None,
        )
        await stack.enter_async_context(serving(build_app(api), config.control.host, config.control.port))
        yield running


def _keeper_parts(config: Config, parts: Parts, traffic: TrafficBoard, supervisor: Supervisor) -> KeeperParts:
    serving, started = config.serving, time.monotonic()

    def known() -> bool:
        """Who lives is known only when every gateway has had the time to say so."""
        return time.monotonic() - started >= serving.lease_seconds

    return KeeperParts(
        fleet=parts.fleet,
        adapters=parts.adapters,
        desired=lambda: desired_of(supervisor.state),
        acknowledged=lambda generation: known() and traffic.acknowledged(generation),
        drained=lambda name: known() and traffic.drained(name, supervisor.state.routes),
        post=supervisor.post,
        settings=keeper_settings(config),
    )


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
