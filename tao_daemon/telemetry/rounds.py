"""Metrics of rounds: what runs, for how long, and when each phase last succeeded."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.metrics import Label, counter, flag, gauge, histogram, timestamp
from tao_daemon.domain.round import Outcome, Phase, RoundSummary
from tao_daemon.domain.signals import PhaseProgressed

_SECONDS = (1, 5, 15, 60, 180, 600, 1800, 7200, 28800)
_PHASES = Label("phase", tuple(Phase))
_OUTCOMES = Label("outcome", tuple(Outcome))

ENDED = counter(
    "tao_round_ended",
    "rounds",
    "Rounds by how they ended.",
    "failed or cancelled in a row: `tao-daemon round list` says why.",
    _OUTCOMES,
)
LAST_ENDED = timestamp(
    "tao_round_last_ended",
    "When a round last ended so; after a restart, of the latest round alone.",
    "How long ago a candidate was accepted.",
    _OUTCOMES,
)
SECONDS = histogram(
    "tao_round_seconds",
    "seconds",
    "Length of whole rounds.",
    "Planning: how many rounds a day are possible.",
    buckets=_SECONDS,
)
RUNNING = flag(
    "tao_round_phase",
    "1 for the phase that runs; all 0 between rounds.",
    "What the daemon does.",
    _PHASES,
)
PHASE_SINCE = timestamp(
    "tao_round_phase_since",
    "When the running phase began, or began again after a restart; 0 between rounds.",
    "A phase hangs: far above its usual tao_round_phase_seconds.",
)
PROGRESS = gauge(
    "tao_round_phase_progress_ratio",
    "ratio",
    "Progress of the phase that runs.",
    "It has not moved for long.",
)
PHASE_SECONDS = histogram(
    "tao_round_phase_seconds",
    "seconds",
    "Length of phases that succeeded.",
    "Which phase makes rounds long.",
    _PHASES,
    buckets=_SECONDS,
)
PHASE_SUCCESS = timestamp(
    "tao_round_phase_last_success",
    "When the phase last succeeded since the daemon started; for evaluating, any verdict is a success.",
    "Rounds begin and never get past one phase.",
    _PHASES,
)
PHASE_FAILURES = counter(
    "tao_round_phase_failures",
    "phases",
    "Phases that could not end, and failed their round.",
    "Which part of the flow is broken.",
    _PHASES,
)
DUE = flag(
    "tao_round_due",
    "1 while a round is due and has not begun.",
    "For long: an open rollout or a round that is being put away keeps it waiting.",
)
LACKS_PROMPTS = flag(
    "tao_round_lacks_prompts",
    "1 while prompts enough for a round are buffered, and its scorers match too few of them.",
    "For long: no round will ever begin. `tao-daemon status` says what is missing.",
)
FAMILIES = (
    ENDED,
    LAST_ENDED,
    SECONDS,
    RUNNING,
    PHASE_SINCE,
    PROGRESS,
    PHASE_SECONDS,
    PHASE_SUCCESS,
    PHASE_FAILURES,
    DUE,
    LACKS_PROMPTS,
)


class RoundMetrics:
    """Times are Unix seconds, given by the caller."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = make_counter(ENDED, registry)
        self._last_ended = make_gauge(LAST_ENDED, registry)
        self._seconds = make_histogram(SECONDS, registry)
        self._running = make_gauge(RUNNING, registry)
        self._phase_since = make_gauge(PHASE_SINCE, registry)
        self._progress = make_gauge(PROGRESS, registry)
        self._phase_seconds = make_histogram(PHASE_SECONDS, registry)
        self._phase_success = make_gauge(PHASE_SUCCESS, registry)
        self._phase_failures = make_counter(PHASE_FAILURES, registry)
        self._due = make_gauge(DUE, registry)
        self._lacks_prompts = make_gauge(LACKS_PROMPTS, registry)

    def due(self, due: bool) -> None:
        self._due.set(due)

    def lacks_prompts(self, lacks: bool) -> None:
        self._lacks_prompts.set(lacks)

    def progressed(self, signal: PhaseProgressed) -> None:
        self._progress.set(signal.done / signal.total if signal.total else 0.0)

    def entered(self, phase: Phase | None, now: float) -> None:
        """A phase begins, or begins again; None: no round runs."""
        for each in Phase:
            self._running.labels(each).set(each is phase)
        self._phase_since.set(now if phase else 0.0)
        self._progress.set(0.0)

    def succeeded(self, phase: Phase, seconds: float, now: float) -> None:
        self._phase_seconds.labels(phase).observe(seconds)
        self._phase_success.labels(phase).set(now)

    def failed(self, phase: Phase) -> None:
        self._phase_failures.labels(phase).inc()

    def ended(self, summary: RoundSummary) -> None:
        self._ended.labels(summary.outcome).inc()
        self._seconds.observe(summary.ended_at - summary.started_at)
        self.remember(summary)

    def remember(self, summary: RoundSummary) -> None:
        """A round that ended before this process began: known, not counted."""
        self._last_ended.labels(summary.outcome).set(summary.ended_at)
