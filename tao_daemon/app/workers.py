"""Who acts in the daemon: the supervisor with its executor, and all who watch the state and post events.

made → tasks → cancelled
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tao_daemon import __version__
from tao_daemon.app.ground import Ground
from tao_daemon.app.notifications import notifying
from tao_daemon.app.settings import keeper_settings, round_settings, watch_settings
from tao_daemon.daemon.claims import RoundClaims
from tao_daemon.daemon.executor import Executor
from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.in_place import InPlaceDelivery
from tao_daemon.daemon.instruments import Instruments
from tao_daemon.daemon.keeping import KeeperParts, desired_of
from tao_daemon.daemon.phases import RoundWork
from tao_daemon.daemon.rollout_watch import RolloutWatch
from tao_daemon.daemon.scheduler import RoundScheduler
from tao_daemon.daemon.supervisor import Supervisor
from tao_daemon.domain.events import DaemonStarted
from tao_daemon.intake.kafka_source import KafkaSource


@dataclass(frozen=True, slots=True)
class Workers:
    supervisor: Supervisor
    executor: Executor
    scheduler: RoundScheduler
    watch: RolloutWatch
    keeper: FleetKeeper
    instruments: Instruments
    source: KafkaSource
    """Runs only with `kafka.enabled`."""


def build_workers(ground: Ground) -> Workers:
    """Put together, not running yet."""
    config, parts, policy = ground.config, ground.parts, ground.policy
    supervisor = Supervisor(
        ground.journal,
        policy,
        execute=lambda command: executor.execute(command),
        clock=time.time,
        listeners=[
            lambda event, transition: instruments.listen(event, transition),
            lambda event, transition: ground.bell.ring(),
        ],
    )
    settings = round_settings(config)
    work = RoundWork(parts, settings, emit=ground.signals, clock=time.time)
    outage_seconds = config.round.outage_seconds
    executor = Executor(work, parts, ground.board, post=supervisor.post, outage_seconds=outage_seconds)
    scheduler = RoundScheduler(
        config.round,
        ground.store,
        claims=RoundClaims(settings, parts.scorer.accepts, parts.gate_scorer.judges),
        policy=policy,
        state=lambda: supervisor.state,
        post=supervisor.post,
        clock=time.time,
    )
    watch = RolloutWatch(
        ground.traffic,
        ground.store,
        parts.sampler,
        parts.gate_scorer,
        watch_settings(config),
        policy=policy,
        state=lambda: supervisor.state,
        post=supervisor.post,
        clock=time.time,
    )
    keeper = FleetKeeper(_keeper_parts(ground, supervisor))
    instruments = Instruments(
        ground.metrics,
        ground.traffic,
        supervisor.state,
        policy=policy,
        clock=time.time,
        mailbox=lambda: supervisor.waiting,
        replicas=keeper.report,
        lacks_prompts=lambda: scheduler.lacks_prompts,
    )
    limit = config.buffer.max_prompt_bytes
    source = KafkaSource(config.kafka, ground.store, max_prompt_bytes=limit, emit=ground.signals, clock=time.time)
    ground.signals.add(scheduler.hear)
    ground.bell.add(scheduler.nudge, keeper.nudge, watch.nudge)
    return Workers(supervisor, executor, scheduler, watch, keeper, instruments, source)


@asynccontextmanager
async def working(ground: Ground, workers: Workers) -> AsyncIterator[list[asyncio.Future[None]]]:
    """Run them; yields what never ends by itself, unless by a bug."""
    config, supervisor = ground.config, workers.supervisor
    async with AsyncExitStack() as stack:
        stack.push_async_callback(workers.executor.stop)
        told = await stack.enter_async_context(notifying(config, ground.signals))
        ground.bell.add(told.nudge)
        supervisor.post(DaemonStarted(__version__, config.digest))
        tasks = [asyncio.create_task(work) for work in _lasting(ground, workers)]
        stack.push_async_callback(_cancel, tasks)
        running: list[asyncio.Future[None]] = [*tasks, *told.tasks, workers.executor.broken]
        if config.kafka.enabled:
            workers.source.start()
            running.append(asyncio.wrap_future(workers.source.finished))
            stack.push_async_callback(asyncio.to_thread, workers.source.stop, config.daemon.shutdown_seconds / 2)
        yield running


def _lasting(ground: Ground, workers: Workers) -> list[Coroutine[Any, Any, None]]:
    found = [
        workers.supervisor.run(),
        workers.scheduler.run(),
        workers.watch.run(),
        workers.keeper.run(),
        workers.instruments.run(),
        ground.pace.run(),
    ]
    if alias := ground.config.serving.in_place_alias:
        parts = ground.parts
        found.append(InPlaceDelivery(alias, ground.board, parts.adapters, parts.fleet.flip_in_place).run())
    return found


def _keeper_parts(ground: Ground, supervisor: Supervisor) -> KeeperParts:
    serving, traffic, started = ground.config.serving, ground.traffic, time.monotonic()

    def known() -> bool:
        """Who lives is known only when every gateway has had the time to say so."""
        return time.monotonic() - started >= serving.lease_seconds

    return KeeperParts(
        fleet=ground.parts.fleet,
        adapters=ground.parts.adapters,
        desired=lambda: desired_of(supervisor.state),
        acknowledged=lambda generation: known() and traffic.acknowledged(generation),
        drained=lambda name: known() and traffic.drained(name, supervisor.state.routes),
        post=supervisor.post,
        settings=keeper_settings(ground.config),
    )


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
