"""Metrics of learning and evaluation."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.metrics import UNKNOWN, Label, counter, gauge, histogram, timestamp
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.report import Decision
from tao_daemon.domain.signals import (
    CandidateEvaluated,
    DivergenceMeasured,
    MismatchMeasured,
    TrainingEnded,
    TrainingStepped,
)

STEPS = counter(
    "tao_learning_steps",
    "steps",
    "Optimizer steps.",
    "A training stands still.",
)
LOSS = gauge(
    "tao_learning_loss",
    "loss",
    "Loss of the latest optimizer step. A policy gradient's loss need not fall.",
    "It is not a number, or jumps: lower the learning rate.",
    start=UNKNOWN,
)
KL = gauge(
    "tao_learning_kl_nats",
    "nats",
    "Mean KL divergence per token from where the round started, estimated at the latest look (a quarter of an epoch).",
    "It reaches training.kl_budget early: the step size is too large for these rewards.",
    start=UNKNOWN,
)
MISMATCH = gauge(
    "tao_learning_mismatch_nats",
    "nats",
    "Mean absolute difference per token between the server's and the trainer's log-probabilities, latest training.",
    "It grows: server and trainer no longer hold the same weights, or compute in other precisions.",
    start=UNKNOWN,
)
GRADIENT = gauge(
    "tao_learning_gradient_norm",
    "norm",
    "Mean gradient norm of the latest training, before clipping.",
    "Far above training.gradient_clip: every step is clipped.",
    start=UNKNOWN,
)
SPEED = gauge(
    "tao_learning_speed_tokens_per_second",
    "tokens per second",
    "Tokens that the latest training processed per second.",
    "Trainings take longer than they did.",
    start=UNKNOWN,
)
TRAININGS = counter(
    "tao_learning_trainings",
    "attempts",
    "Attempts at training by how they ended.",
    "failed: the round's report says why. An out-of-memory kill ends here too.",
    Label("outcome", ("trained", "failed", "cancelled")),
)
TRAINING_SECONDS = histogram(
    "tao_learning_training_seconds",
    "seconds",
    "Length of attempts at training, whatever came of them.",
    "Planning of rounds; it nears training.timeout_seconds.",
    buckets=(1, 5, 15, 60, 180, 600, 1800, 3600, 7200, 14400, 28800),
)
LAST_TRAINED = timestamp(
    "tao_learning_last_success",
    "When an adapter was last trained.",
    "Rounds begin and none gets past training.",
)
DIVERGENCE = gauge(
    "tao_learning_divergence_nats",
    "nats",
    "KL divergence per answer of the latest candidate, on its own ones: from its start, and from the base model.",
    "Rounds add up: the gate refuses above gate.max_kl_to_base_per_token times the length of an answer.",
    Label("source", ("start", "base")),
    start=UNKNOWN,
)
VERDICTS = counter(
    "tao_evaluation_verdicts",
    "verdicts",
    "Verdicts of the gate.",
    "Nothing is ever promoted. inconclusive again and again: more held-out prompts, or gains too small to see.",
    Label("decision", tuple(Decision)),
)
DIFFERENCE = gauge(
    "tao_evaluation_difference_ratio",
    "ratio",
    "Candidate minus incumbent on held-out prompts, latest gate, with its 95 % interval (gate.confidence).",
    "How much a candidate gained; a pass needs low above 0.",
    Label("bound", ("mean", "low", "high")),
    start=UNKNOWN,
)
SCORE = gauge(
    "tao_evaluation_score_ratio",
    "ratio",
    "Mean held-out score in the latest gate.",
    "Both near 1: the scorer no longer tells versions apart. Not comparable between changes of [[scorers]].",
    Label("version", ("incumbent", "candidate")),
    start=UNKNOWN,
)
PAIRS = gauge(
    "tao_evaluation_pairs",
    "pairs",
    "Held-out prompts that both versions answered, scored, in the latest gate.",
    "Verdicts are inconclusive: compare with gate.min_prompts.",
)
DIFFERING = gauge(
    "tao_evaluation_differing_pairs",
    "pairs",
    "Pairs whose scores differ, in the latest gate.",
    "Verdicts are inconclusive: fewer than gate.min_differing_pairs carry no verdict.",
)
DROPPED = gauge(
    "tao_evaluation_dropped_prompts",
    "prompts",
    "Held-out prompts that could not be answered or scored, in the latest gate.",
    "More than a tenth makes the gate inconclusive.",
)
LENGTH = gauge(
    "tao_evaluation_length_ratio",
    "ratio",
    "Mean length of the candidate's answers over the incumbent's, latest gate.",
    "A candidate wins by writing more: above gate.max_length_ratio it does not pass.",
    start=UNKNOWN,
)
TRUNCATION = gauge(
    "tao_evaluation_truncation_increase_ratio",
    "ratio",
    "How much larger the share of truncated answers is with the candidate, latest gate.",
    "Candidates do not pass, for gate.max_truncation_increase.",
    start=UNKNOWN,
)
LAST_VERDICT = timestamp(
    "tao_evaluation_last_verdict",
    "When the gate last gave a verdict.",
    "How old the figures above are.",
)
FAMILIES = (
    STEPS,
    LOSS,
    KL,
    MISMATCH,
    GRADIENT,
    SPEED,
    TRAININGS,
    TRAINING_SECONDS,
    LAST_TRAINED,
    DIVERGENCE,
    VERDICTS,
    DIFFERENCE,
    SCORE,
    PAIRS,
    DIFFERING,
    DROPPED,
    LENGTH,
    TRUNCATION,
    LAST_VERDICT,
)


class LearningMetrics:
    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._steps = make_counter(STEPS, registry)
        self._loss = make_gauge(LOSS, registry)
        self._kl = make_gauge(KL, registry)
        self._trainings = make_counter(TRAININGS, registry)
        self._seconds = make_histogram(TRAINING_SECONDS, registry)
        self._last_trained = make_gauge(LAST_TRAINED, registry)
        self._divergence = make_gauge(DIVERGENCE, registry)
        self._mismatch = make_gauge(MISMATCH, registry)
        self._measured = {
            "gradient_norm": make_gauge(GRADIENT, registry),
            "tokens_per_second": make_gauge(SPEED, registry),
        }

    def diverged(self, signal: DivergenceMeasured) -> None:
        self._divergence.labels("start").set(signal.from_start)
        self._divergence.labels("base").set(signal.from_base)

    def mismatched(self, signal: MismatchMeasured) -> None:
        self._mismatch.set(signal.nats)

    def stepped(self, signal: TrainingStepped) -> None:
        self._steps.inc()
        self._loss.set(signal.loss)
        self._kl.set(signal.kl)

    def ended(self, signal: TrainingEnded) -> None:
        self._trainings.labels(TRAININGS.labels[0].known(signal.outcome)).inc()
        self._seconds.observe(signal.seconds)
        if signal.outcome == "trained":
            self._last_trained.set(self._clock())
            for source in DIVERGENCE.labels[0].values:
                self._divergence.labels(source).set(UNKNOWN)  # that of the candidate before
            for name, kept in self._measured.items():
                kept.set(signal.metrics.get(name, UNKNOWN))


class EvaluationMetrics:
    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._verdicts = make_counter(VERDICTS, registry)
        self._last = make_gauge(LAST_VERDICT, registry)
        difference, score = make_gauge(DIFFERENCE, registry), make_gauge(SCORE, registry)
        counts = {"pairs": PAIRS, "differing_pairs": DIFFERING, "dropped": DROPPED}
        self._counts = {name: make_gauge(family, registry) for name, family in counts.items()}
        self._measured = {
            "difference": difference.labels("mean"),
            "difference_low": difference.labels("low"),
            "difference_high": difference.labels("high"),
            "incumbent_score": score.labels("incumbent"),
            "candidate_score": score.labels("candidate"),
            "length_ratio": make_gauge(LENGTH, registry),
            "truncation_increase": make_gauge(TRUNCATION, registry),
        }

    def evaluated(self, signal: CandidateEvaluated) -> None:
        """A verdict without a figure takes the figure of the one before away: it is not of this gate."""
        self._verdicts.labels(signal.decision).inc()
        self._last.set(self._clock())
        for name, kept in self._counts.items():
            kept.set(signal.numbers.get(name, 0.0))
        for name, kept in self._measured.items():
            kept.set(signal.numbers.get(name, UNKNOWN))
