"""Signals and transitions become Prometheus metrics: `tao_<room>_<noun>_<unit>`, no unbounded label.

Adapter names appear only on the `_info` metric, which holds one series at a time.
"""

from __future__ import annotations

from typing import assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tao_daemon.domain.ports import BufferStats
from tao_daemon.domain.rollout import RolloutPhase, RolloutState, Routes
from tao_daemon.domain.round import Phase, RoundState, RoundSummary
from tao_daemon.domain.signals import (
    CompletionsSampled,
    GroupsScored,
    IntakeLagMeasured,
    IntakeStateChanged,
    OffsetGapFound,
    PhaseProgressed,
    PromptsBuffered,
    RecordsRejected,
    SamplesLost,
    Signal,
    TrainingStepped,
    UpstreamCalled,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_INTAKE_STATES = ("consuming", "paused", "broker_unreachable", "buffer_failed", "stopped")
_PHASE_SECONDS = (1, 5, 15, 60, 180, 600, 1800, 7200, 28800)


class Metrics:
    """All metrics of the daemon in a registry of their own. An `Emit`, callable from any thread."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._define_intake()
        self._define_rounds()
        build = Info("tao_daemon_build", "Version of the running daemon", registry=self.registry)
        build.info({"version": version})
        self._upstream = Histogram(
            "tao_serving_request_seconds", "Calls to model servers", ["operation", "outcome"], registry=self.registry
        )
        self._define_rollouts()

    def _define_intake(self) -> None:
        registry = self.registry
        self._buffered = Counter(
            "tao_intake_prompts_total", "Prompts committed to the buffer", ["split"], registry=registry
        )
        self._duplicates = Counter(
            "tao_intake_duplicates_total", "Records that were buffered before", registry=registry
        )
        self._rejected = Counter(
            "tao_intake_rejected_total", "Records sent to the dead-letter topic", ["code"], registry=registry
        )
        self._gap = Counter(
            "tao_intake_missing_offsets_total", "Offsets that the broker dropped unread", registry=registry
        )
        self._state = Gauge("tao_intake_state", "1 for the state that intake is in", ["state"], registry=registry)
        self._lag = Gauge(
            "tao_intake_lag_records", "Records not yet buffered", ["topic", "partition"], registry=registry
        )
        self._last = Gauge(
            "tao_intake_last_commit_timestamp_seconds", "Unix time of the last commit", registry=registry
        )
        self._prompts = Gauge("tao_buffer_prompts", "Prompts in the buffer", ["split"], registry=registry)
        self._available = Gauge(
            "tao_buffer_available_prompts", "Fresh prompts for training or a gate", ["split"], registry=registry
        )
        self._clusters = Gauge("tao_buffer_clusters", "Near-duplicate clusters", registry=registry)

    def _define_rounds(self) -> None:
        registry = self.registry
        self._rounds = Counter("tao_round_ended_total", "Rounds by outcome", ["outcome"], registry=registry)
        self._phase = Gauge("tao_round_phase", "1 for the phase that runs", ["phase"], registry=registry)
        self._progress = Gauge("tao_round_phase_progress_ratio", "Progress of the phase that runs", registry=registry)
        self._seconds = Histogram(
            "tao_round_seconds", "Length of whole rounds", buckets=_PHASE_SECONDS, registry=registry
        )
        self._completions = Counter(
            "tao_sampling_completions_total", "Completions sampled", ["strategy"], registry=registry
        )
        self._tokens = Counter("tao_sampling_tokens_total", "Completion tokens sampled", registry=registry)
        self._lost = Counter("tao_sampling_lost_total", "Samples that did not come", ["kind"], registry=registry)
        self._groups = Counter("tao_scoring_groups_total", "Groups by what became of them", ["fate"], registry=registry)
        self._reward = Gauge(
            "tao_scoring_mean_reward_ratio", "Mean reward of the last round", ["completions"], registry=registry
        )
        self._loss = Gauge("tao_learning_loss", "Loss of the last optimizer step", registry=registry)
        self._kl = Gauge("tao_learning_kl_nats", "Mean per-token KL to the start of the round", registry=registry)
        self._steps = Counter("tao_learning_steps_total", "Optimizer steps", registry=registry)

    def _define_rollouts(self) -> None:
        registry = self.registry
        self._generation = Gauge("tao_rollout_routes_generation", "Generation of the routes", registry=registry)
        self._incumbent = Info("tao_rollout_incumbent", "The adapters that serve", registry=registry)
        self._on_base = Gauge(
            "tao_rollout_serving_base", "1 while the base model serves, 0 while an adapter does", registry=registry
        )
        self._unready = Gauge(
            "tao_rollout_unready_replicas", "Replicas that get no adapter's requests", registry=registry
        )
        self._rollout_phase = Gauge(
            "tao_rollout_phase", "1 for the phase that the open rollout is in", ["phase"], registry=registry
        )
        self._fraction = Gauge(
            "tao_rollout_traffic_fraction_ratio", "Share of conversations that the candidate answers", registry=registry
        )
        self._pairs = Gauge("tao_rollout_shadow_pairs", "Shadow pairs of the present evidence", registry=registry)
        self._difference = Gauge(
            "tao_rollout_shadow_mean_difference_ratio", "Mean of candidate minus incumbent", registry=registry
        )
        self._paused = Gauge("tao_rollout_paused", "1 while a person holds the open rollout", registry=registry)
        self._rollouts = Counter("tao_rollout_ended_total", "Rollouts by how they ended", ["phase"], registry=registry)
        self._gateways = Gauge("tao_rollout_live_gateways", "Gateways whose lease runs", registry=registry)

    def __call__(self, signal: Signal) -> None:
        match signal:
            case PromptsBuffered():
                self._buffered.labels("train").inc(signal.train)
                self._buffered.labels("held_out").inc(signal.held_out)
                self._buffered.labels("excluded").inc(signal.excluded)
                self._duplicates.inc(signal.duplicates)
                self._last.set_to_current_time()
            case RecordsRejected():
                self._rejected.labels(signal.code).inc(signal.count)
            case OffsetGapFound():
                self._gap.inc(signal.missing)
            case IntakeStateChanged():
                for state in _INTAKE_STATES:
                    self._state.labels(state).set(state == signal.state)
            case IntakeLagMeasured():
                self._lag.labels(signal.topic, str(signal.partition)).set(signal.records)
            case PhaseProgressed():
                self._progress.set(signal.done / signal.total if signal.total else 0.0)
            case CompletionsSampled():
                for strategy, count in signal.strategy_counts:
                    self._completions.labels(strategy).inc(count)
                self._tokens.inc(signal.tokens)
            case SamplesLost():
                self._lost.labels(signal.kind).inc(signal.count)
            case GroupsScored():
                self._groups.labels("kept").inc(signal.kept)
                self._groups.labels("dropped").inc(signal.dropped)
                self._reward.labels("all").set(signal.mean_reward)
                self._reward.labels("plain").set(signal.mean_reward_plain)
            case TrainingStepped():
                self._steps.inc()
                self._loss.set(signal.loss)
                self._kl.set(signal.kl)
            case UpstreamCalled():
                self._upstream.labels(signal.operation, signal.outcome).observe(signal.seconds)
            case _:
                assert_never(signal)

    def routes(self, routes: Routes) -> None:
        self._generation.set(routes.generation)
        self._on_base.set(routes.adapter is None)
        self._unready.set(len(routes.unready))
        self._fraction.set(routes.fraction)
        names = {"adapter": routes.adapter, "previous": routes.previous, "candidate": routes.candidate}
        self._incumbent.info({kind: name or "" for kind, name in names.items()})

    def running(self, running: RoundState | None) -> None:
        for phase in Phase:
            self._phase.labels(phase.value).set(running is not None and running.phase is phase)

    def round_ended(self, summary: RoundSummary) -> None:
        self._rounds.labels(summary.outcome.value).inc()
        self._seconds.observe(summary.ended_at - summary.started_at)

    def rollout(self, rollout: RolloutState | None) -> None:
        """The present rollout, ended or not."""
        for phase in (RolloutPhase.STAGED, RolloutPhase.SHADOW, RolloutPhase.CANARY, RolloutPhase.BAKING):
            self._rollout_phase.labels(phase.value).set(rollout is not None and rollout.phase is phase)
        self._paused.set(rollout is not None and rollout.paused_by is not None)
        tally = rollout.evidence.shadow if rollout else None
        self._pairs.set(tally.pairs if tally else 0)
        self._difference.set(tally.total / tally.pairs if tally and tally.pairs else 0.0)

    def rollout_ended(self, phase: RolloutPhase) -> None:
        assert not phase.is_open
        self._rollouts.labels(phase.value).inc()

    def gateways(self, live: int) -> None:
        self._gateways.set(live)

    def buffer(self, stats: BufferStats) -> None:
        self._prompts.labels("train").set(stats.train)
        self._prompts.labels("held_out").set(stats.held_out)
        self._prompts.labels("excluded").set(stats.excluded)
        self._available.labels("train").set(stats.train_available)
        self._available.labels("held_out").set(stats.held_out_available)
        self._clusters.set(stats.clusters)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
