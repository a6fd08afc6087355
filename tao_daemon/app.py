"""The composition root: a Config becomes parts, parts become a daemon. The only file that names backends.

lock → journal → buffer → parts → supervisor, scheduler, intake, control API → stop in the opposite order
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tao_daemon import __version__
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import Config
from tao_daemon.control.auth import ensure_token
from tao_daemon.control.http_api import build_app
from tao_daemon.control.service import Service
from tao_daemon.daemon.executor import Executor
from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.in_place import InPlaceDelivery
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.daemon.instruments import record_transition
from tao_daemon.daemon.keeping import KeeperParts, KeeperSettings, desired_of
from tao_daemon.daemon.phases import Parts, RoundSettings, RoundWork
from tao_daemon.daemon.progress import ProgressBoard
from tao_daemon.daemon.rollout_watch import RolloutWatch, WatchSettings
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.daemon.scheduler import RoundScheduler
from tao_daemon.daemon.state import Policy
from tao_daemon.daemon.supervisor import Supervisor
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import DaemonStarted
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import Emit, Signal
from tao_daemon.evaluation.evaluator import Evaluator
from tao_daemon.gateway.server import run_gateway
from tao_daemon.intake.importing import read_jsonl
from tao_daemon.intake.kafka_source import KafkaSource
from tao_daemon.learning.subprocess_trainer import SubprocessTrainer
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.rollout.assessment import Limits
from tao_daemon.rollout.plan import FreezeWindow, Plan, clock_seconds
from tao_daemon.rollout.vllm_fleet import VllmFleet
from tao_daemon.sampling.pace import LivePace
from tao_daemon.sampling.pacing import Pacer
from tao_daemon.sampling.vllm_sampler import VllmSampler
from tao_daemon.scoring.scorer import ConfiguredScorer
from tao_daemon.telemetry.logs import configure_logging
from tao_daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 3.0


def journal_path(config: Config) -> Path:
    return config.daemon.data_dir / "control.db"


def routes_path(config: Config) -> Path:
    return config.daemon.data_dir / "routes.json"


def policy_of(config: Config) -> Policy:
    """What the configuration lets the machine decide."""
    rollout = config.rollout
    limits = Limits(
        alpha=rollout.alpha,
        margin=rollout.margin,
        relative_risk=rollout.relative_risk,
        max_error_fraction=rollout.max_error_fraction,
        min_pairs=rollout.shadow_pairs,
    )
    plan = Plan(
        mode=rollout.mode,
        newer_candidate=rollout.newer_candidate,
        fractions=rollout.canary_fractions,
        step_seconds=rollout.step_seconds,
        step_conversations=rollout.step_conversations,
        bake_seconds=rollout.bake_seconds,
        bake_conversations=rollout.bake_conversations,
        limits=limits,
        freeze=tuple(FreezeWindow(w.days, clock_seconds(w.start), clock_seconds(w.end)) for w in rollout.freeze),
    )
    return Policy(plan, config.round.max_attempts)


async def run_daemon(config: Config) -> None:
    """Run until SIGTERM or SIGINT, then stop within `shutdown_seconds`."""
    configure_logging(config.daemon.log_level)
    stop = _stop_event()
    with sole_owner(config.daemon.data_dir):
        async with AsyncExitStack() as stack:
            work = await stack.enter_async_context(_daemon(config))
            stopping = asyncio.create_task(stop.wait())
            waited: list[asyncio.Future[Any]] = [*work, stopping]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            log.info("stopping")
            asyncio.get_running_loop().call_later(config.daemon.shutdown_seconds, _give_up)
            for ended in (future for future in work if future.done()):
                ended.result()


async def run_gateway_process(config: Config) -> None:
    """Run a gateway until SIGTERM or SIGINT."""
    configure_logging(config.daemon.log_level)
    await run_gateway(config, _stop_event())


async def import_prompts(config: Config, file: Path) -> dict[str, Any]:
    """Buffer a file of requests; counts, and the lines that were rejected with their codes."""
    with sole_owner(config.daemon.data_dir):
        store = _open_store(config, emit=lambda signal: None)
        try:
            return await _import(config, store, file)
        finally:
            await asyncio.to_thread(store.close)


async def _import(config: Config, store: DuckDBStore, file: Path) -> dict[str, Any]:
    counts = dict.fromkeys(("train", "held_out", "excluded", "duplicates"), 0)
    rejected: list[dict[str, Any]] = []
    lines = read_jsonl(file, max_bytes=config.buffer.max_prompt_bytes, clock=time.time)
    while batch := list(islice(lines, config.kafka.max_batch_records)):
        prompts = tuple(item for item in batch if isinstance(item, Prompt))
        rejected += [asdict(item) for item in batch if not isinstance(item, Prompt)]
        ingested = await asyncio.wrap_future(store.submit(Ingest(prompts, {})))
        for name in counts:
            counts[name] += getattr(ingested, name)
    return {**counts, "rejected": rejected}


async def buffer_stats(config: Config) -> dict[str, Any]:
    """What the buffer holds, read from its file; needs the daemon stopped."""
    with sole_owner(config.daemon.data_dir):
        store = _open_store(config, emit=lambda signal: None)
        try:
            return asdict(await store.stats())
        finally:
            await asyncio.to_thread(store.close)


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
        store = await asyncio.to_thread(_open_store, config, emit)
        stack.push_async_callback(asyncio.to_thread, store.close)
        # Below vLLM's own 5 s, so that no request meets a connection that is just being closed.
        connector = aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        traffic = TrafficBoard(config.serving.lease_seconds, time.monotonic)
        pace = _pace(config, traffic)
        parts = _parts(config, store, session, pace, emit)
        board = RoutesBoard(routes_path(config))
        policy = policy_of(config)
        supervisor = Supervisor(
            journal,
            policy,
            execute=lambda command: executor.execute(command),
            clock=time.time,
            listeners=[record_transition(metrics), lambda event, transition: nudge()],
        )

        def nudge() -> None:
            """Whoever acts on the state looks at once."""
            scheduler.nudge()
            keeper.nudge()
            watch.nudge()

        work = RoundWork(parts, _round_settings(config), emit=emit, clock=time.time)
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
            _watch_settings(config),
            policy=policy,
            state=lambda: supervisor.state,
            post=supervisor.post,
            clock=time.time,
        )
        keeper = FleetKeeper(_keeper_parts(config, parts, traffic, supervisor))
        source = KafkaSource(
            config.kafka, store, max_prompt_bytes=config.buffer.max_prompt_bytes, emit=emit, clock=time.time
        )
        service = Service(
            supervisor,
            board,
            progress,
            store,
            parts.archive,
            parts.adapters,
            metrics,
            traffic,
            watch,
            keeper,
            lambda: Journal(journal_path(config)),
            policy=policy,
            clock=time.time,
            intake_state=lambda: source.state if config.kafka.enabled else "off",
            trigger_reason=lambda: scheduler.reason,
        )
        supervisor.post(DaemonStarted(__version__))
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
        await stack.enter_async_context(_control_api(config, service))
        yield running


def _pace(config: Config, traffic: TrafficBoard) -> LivePace:
    """Only what shares its servers with live requests is paced by it."""
    requests = config.sampling.concurrent_prompts * (1 + len(config.sampling.strategies))
    return LivePace(Pacer(slowdown=config.sampling.live_slowdown, most=requests), traffic.answers)


def _parts(config: Config, store: DuckDBStore, session: aiohttp.ClientSession, pace: LivePace, emit: Emit) -> Parts:
    serving = config.serving
    replicas = [_client(config, url, session, emit) for url in serving.replicas]
    # A server for sampling alone needs the adapters too: it is asked for the incumbent and for the candidate.
    extra = [_client(config, config.sampling.endpoint, session, emit)] if config.sampling.endpoint else []
    sampler = VllmSampler(
        extra or replicas,
        config.sampling,
        base_model=serving.base_model,
        answer_temperature=config.gate.temperature,
        pace=None if extra else pace,
        emit=emit,
    )
    scorer = ConfiguredScorer(config.scorers, min_spread=config.training.min_spread)
    archive = RoundArchive(config.daemon.data_dir / "rounds")
    return Parts(
        store=store,
        sampler=sampler,
        scorer=scorer,
        trainer=SubprocessTrainer(config.training, archive.training_directory),
        evaluator=Evaluator(sampler, scorer, config.gate),
        adapters=DirectoryAdapterStore(config.daemon.data_dir / "adapters", max_rank=serving.max_rank),
        fleet=VllmFleet(
            [*replicas, *extra],
            base_model=serving.base_model,
            max_rank=serving.max_rank,
            max_error=serving.max_fingerprint_error,
            path_maps=serving.path_maps,
        ),
        archive=archive,
    )


def _watch_settings(config: Config) -> WatchSettings:
    return WatchSettings(
        evaluate_seconds=config.rollout.evaluate_seconds,
        shadow_pairs_max=config.rollout.shadow_pairs_max,
        shadow_concurrency=config.rollout.shadow_concurrency,
        tenant_share=config.round.tenant_share,
    )


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
        settings=KeeperSettings(
            lease_seconds=serving.lease_seconds,
            reconcile_seconds=serving.reconcile_seconds,
            drain_seconds=serving.drain_seconds,
            keep_adapters=serving.keep_adapters,
        ),
    )


def _client(config: Config, url: str, session: aiohttp.ClientSession, emit: Emit) -> VllmClient:
    serving = config.serving
    return VllmClient(
        url,
        api_key=serving.api_key.get_secret_value() if serving.api_key else None,
        session=session,
        inference_seconds=config.sampling.timeout_seconds,
        admin_seconds=serving.request_timeout_seconds,
        load_seconds=serving.load_timeout_seconds,
        emit=emit,
    )


def _round_settings(config: Config) -> RoundSettings:
    return RoundSettings(
        prompts=config.round.prompts,
        tenant_share=config.round.tenant_share,
        held_out_prompts=config.gate.prompts,
        min_groups=config.training.min_groups,
        min_spread=config.training.min_spread,
        sampling_limit=config.sampling.max_tokens,
        outage_seconds=config.round.outage_seconds,
        base_seed=config.round.seed,
        base_model=str(config.training.base_model),
        config_digest=config.digest,
    )


def _open_store(config: Config, emit: Emit) -> DuckDBStore:
    buffer = config.buffer
    return DuckDBStore(
        config.daemon.data_dir / "tao.duckdb",
        held_out_fraction=buffer.held_out_fraction,
        similarity=buffer.near_duplicate_similarity,
        max_attempts=buffer.max_attempts,
        min_free_disk_mib=buffer.min_free_disk_mib,
        emit=emit,
    )


@asynccontextmanager
async def _control_api(config: Config, service: Service) -> AsyncIterator[None]:
    token = ensure_token(config.daemon.data_dir)
    runner = web.AppRunner(build_app(service, token), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.control.host, config.control.port)
        await site.start()
        log.info("control API listens", extra={"host": config.control.host, "port": config.control.port})
        yield
    finally:
        await runner.cleanup()


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _give_up() -> None:
    """What did not stop in time is killed with this process; the journal makes that safe."""
    log.error("the stop took longer than daemon.shutdown_seconds; ending now")
    os._exit(1)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
