"""All metrics of the daemon, in a registry of their own: each room's in its own file.

Invariants: no unbounded label; adapters' names appear on `_info` metrics alone; every series whose labels are known is
there from the start, so that no alert waits for an absent one.

signals and transitions → counters and gauges → (what must be looked at is looked at) → exposition
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from tao_daemon.clients.process_metrics import ProcessMetrics
from tao_daemon.clients.prometheus import CONTENT_TYPE, exposition, new_registry
from tao_daemon.domain.ports import BufferStats, Clock
from tao_daemon.domain.signals import (
    BufferFailed,
    BufferMeasured,
    BufferWritten,
    CandidateEvaluated,
    CompletionsSampled,
    DeadLettersFailed,
    DecoysJudged,
    DivergenceMeasured,
    GroupsScored,
    IntakeInterrupted,
    IntakeLagMeasured,
    IntakeStateChanged,
    MismatchMeasured,
    NotificationLag,
    NotificationSent,
    OffsetGapFound,
    PhaseProgressed,
    PromptsBuffered,
    RecordsRejected,
    SamplesLost,
    SamplesMeasured,
    SamplingPaced,
    ScorerAsked,
    ScorerFailed,
    ScorerKnown,
    Signal,
    TrainingEnded,
    TrainingStepped,
    UpstreamCalled,
)
from tao_daemon.telemetry.control import ControlMetrics, MachineMetrics, NotificationMetrics
from tao_daemon.telemetry.intake import BufferMetrics, IntakeMetrics
from tao_daemon.telemetry.learning import EvaluationMetrics, LearningMetrics
from tao_daemon.telemetry.rollout import RolloutMetrics, RoutesMetrics
from tao_daemon.telemetry.rounds import RoundMetrics
from tao_daemon.telemetry.sampling import SamplingMetrics
from tao_daemon.telemetry.scoring import ScoringMetrics
from tao_daemon.telemetry.serving import ServingMetrics

__all__ = ["CONTENT_TYPE", "Metrics"]


class Metrics:
    """An `Emit`, callable from any thread. Transitions are told by `daemon.instruments`."""

    def __init__(self, version: str, clock: Clock) -> None:
        registry = self.registry = new_registry()
        self.process = ProcessMetrics(registry, version=version, component="daemon")
        self.intake = IntakeMetrics(registry, clock)
        self.buffer_file = BufferMetrics(registry)
        self.sampling = SamplingMetrics(registry)
        self.scoring = ScoringMetrics(registry)
        self.learning = LearningMetrics(registry, clock)
        self.evaluation = EvaluationMetrics(registry, clock)
        self.rounds = RoundMetrics(registry)
        self.routes = RoutesMetrics(registry)
        self.rollout = RolloutMetrics(registry)
        self.serving = ServingMetrics(registry)
        self.machine = MachineMetrics(registry)
        self.control = ControlMetrics(registry)
        self.notification = NotificationMetrics(registry, clock)
        self._looks: list[Callable[[], None]] = []

    def __call__(self, signal: Signal) -> None:
        match signal:
            case PromptsBuffered():
                self.intake.buffered(signal)
            case RecordsRejected():
                self.intake.rejected(signal)
            case OffsetGapFound():
                self.intake.gap(signal)
            case IntakeStateChanged():
                self.intake.state(signal)
            case IntakeLagMeasured():
                self.intake.lag(signal)
            case IntakeInterrupted():
                self.intake.interrupted(signal)
            case DeadLettersFailed():
                self.intake.dead_letters_failed(signal)
            case BufferWritten():
                self.buffer_file.written(signal)
            case BufferFailed():
                self.buffer_file.failed(signal)
            case BufferMeasured():
                self.buffer_file.measured(signal)
            case PhaseProgressed():
                self.rounds.progressed(signal)
            case CompletionsSampled():
                self.sampling.sampled(signal)
            case SamplesLost():
                self.sampling.lost(signal)
            case SamplingPaced():
                self.sampling.paced(signal)
            case SamplesMeasured():
                self.sampling.measured(signal)
            case GroupsScored():
                self.scoring.scored(signal)
            case ScorerFailed():
                self.scoring.failed(signal)
            case ScorerKnown():
                self.scoring.known(signal)
            case ScorerAsked():
                self.scoring.asked(signal)
            case DecoysJudged():
                self.scoring.decoys(signal)
            case DivergenceMeasured():
                self.learning.diverged(signal)
            case MismatchMeasured():
                self.learning.mismatched(signal)
            case TrainingStepped():
                self.learning.stepped(signal)
            case TrainingEnded():
                self.learning.ended(signal)
            case CandidateEvaluated():
                self.evaluation.evaluated(signal)
            case UpstreamCalled():
                self.serving.called(signal)
            case NotificationSent():
                self.notification.sent(signal)
            case NotificationLag():
                self.notification.lag(signal)
            case _:
                assert_never(signal)

    def buffer(self, stats: BufferStats) -> None:
        self.buffer_file.stats(stats)

    def before_scrapes(self, look: Callable[[], None]) -> None:
        """`look` is called before every exposition, to set what nobody tells. It must not block."""
        self._looks.append(look)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes. On the event loop's thread."""
        for look in self._looks:
            look()
        return exposition(self.registry)
