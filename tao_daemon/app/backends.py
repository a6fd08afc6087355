"""The backends of the ports: which store, sampler, scorer, trainer, fleet."""

from __future__ import annotations

import aiohttp

from tao_daemon.app.checking import check_strategies
from tao_daemon.app.paths import adapters_path, buffer_path, rounds_path
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import Config
from tao_daemon.daemon.round_parts import Parts
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.signals import Emit, ScorerKnown
from tao_daemon.evaluation.evaluator import Evaluator
from tao_daemon.learning.subprocess_trainer import SubprocessTrainer
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.rollout.vllm_fleet import VllmFleet
from tao_daemon.sampling.pace import LivePace
from tao_daemon.sampling.pacing import Pacer
from tao_daemon.sampling.vllm_sampler import VllmSampler
from tao_daemon.scoring.building import trains_and_judges
from tao_daemon.scoring.scorer import ConfiguredScorer


def open_store(config: Config, emit: Emit) -> DuckDBStore:
    buffer = config.buffer
    return DuckDBStore(
        buffer_path(config),
        held_out_fraction=buffer.held_out_fraction,
        similarity=buffer.near_duplicate_similarity,
        max_attempts=buffer.max_attempts,
        min_free_disk_mib=buffer.min_free_disk_mib,
        emit=emit,
    )


def live_pace(config: Config, traffic: TrafficBoard, emit: Emit) -> LivePace:
    """Only what shares its servers with live requests is paced by it."""
    requests = config.sampling.concurrent_prompts * (1 + len(config.sampling.strategies))
    return LivePace(Pacer(slowdown=config.sampling.live_slowdown, most=requests), traffic.answers, emit)


def build_parts(
    config: Config, store: DuckDBStore, session: aiohttp.ClientSession, pace: LivePace, emit: Emit
) -> Parts:
    """Close both scorers of it in the end."""
    serving = config.serving
    replicas = [_client(config, url, session, emit) for url in serving.replicas]
    # A server for sampling alone needs the adapters too: it is asked for the incumbent and for the candidate.
    extra = [_client(config, config.sampling.endpoint, session, emit)] if config.sampling.endpoint else []
    check_strategies(config)
    min_spread = config.training.min_spread
    sampler = VllmSampler(
        extra or replicas,
        config.sampling,
        base_model=serving.base_model,
        answer_temperature=config.gate.temperature,
        min_spread=min_spread,
        pace=pace if not extra and config.sampling.live_slowdown else None,
        emit=emit,
    )
    scorer = ConfiguredScorer(config.scorers, min_spread=min_spread, session=session, emit=emit)
    gate_scorer = scorer
    if judges := config.gate.scorers:
        gate_scorer = ConfiguredScorer(judges, min_spread=min_spread, session=session, emit=emit, beside=scorer)
    for each in (*config.scorers, *judges):
        emit(ScorerKnown(each.name, each.type))
    archive = RoundArchive(rounds_path(config))
    return Parts(
        store=store,
        sampler=sampler,
        scorer=scorer,
        gate_scorer=gate_scorer,
        trainer=SubprocessTrainer(config.training, archive.training_directory),
        evaluator=Evaluator(sampler, gate_scorer, config.gate, remarks=_remarks(config)),
        adapters=DirectoryAdapterStore(adapters_path(config), max_rank=serving.max_rank),
        fleet=VllmFleet(
            [*replicas, *extra],
            base_model=serving.base_model,
            max_rank=serving.max_rank,
            max_error=serving.max_fingerprint_error,
            path_maps=serving.path_maps,
        ),
        archive=archive,
    )


def _remarks(config: Config) -> tuple[str, ...]:
    """What every verdict says of how it was reached."""
    twice = trains_and_judges(config.scorers, config.gate.scorers)
    if not twice:
        return ()
    return (f"judged by what it was trained to please: {', '.join(twice)}; set [[gate.scorers]]",)


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
