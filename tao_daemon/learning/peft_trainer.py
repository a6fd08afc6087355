"""One training: π₀ once, then the objective's gradient over the round's groups, then the adapter with its proof.

Every process of the training runs this; the first one reports, keeps checkpoints and writes the artefact.

loading → reference (π₀, mismatch with the sampler, masks) → training → saving (adapter, fingerprint) → result
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.signals import MismatchMeasured
from tao_daemon.learning.checkpoints import base_digest
from tao_daemon.learning.contract import FINGERPRINT_FILE, PhaseEntered, TrainingSpec, WorkerEvent, WorkerResult
from tao_daemon.learning.course import Course
from tao_daemon.learning.dev_objective import DevSet
from tao_daemon.learning.fingerprinting import checked_change, fingerprint_of
from tao_daemon.learning.job import Job
from tao_daemon.learning.kl_meter import KlMeter
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.machine_memory import Available, available_bytes, fitted, peak_bytes
from tao_daemon.learning.optimisation import Company, Outcome, optimise
from tao_daemon.learning.parallel import Ranks
from tao_daemon.learning.peft_policy import Policy, load_policy
from tao_daemon.learning.reference import check_reference, counted, reference
from tao_daemon.learning.resuming import Keeper, Manner, Saved, newest, read

Say = Callable[[WorkerEvent], None]
logger = logging.getLogger(__name__)


def train(job: Job, artefact: Path, say: Say, ranks: Ranks, available: Available = available_bytes) -> WorkerResult:
    """Train and write the artefact into the existing directory. Raises TrainingError with the reason."""
    watch = _Watch(say)
    watch.enter("loading")
    digest = _checked_digest(job)
    identity = f"{job.digest}/{digest}"
    saved = _saved(job, identity, ranks)
    spec, fit = fitted(job, ranks, available, saved.manner if saved else None)
    policy = load_policy(spec)
    _check_vocabulary(policy, job)
    logger.info("base loaded", extra={"device": str(policy.device), "dtype": str(policy.dtype)})
    watch.enter("reference")
    groups = reference(policy, job.selection, spec, ranks)
    meter = KlMeter(policy, job.selection.groups, spec, ranks)
    say(MismatchMeasured(meter.mismatch))
    check_reference(groups, meter.mismatch, spec.max_mismatch)
    dev = DevSet(policy, job.dev, ranks, spec.micro_batch_tokens) if job.dev else None
    watch.enter("training")
    learner = Learner(policy, job.selection.objective, spec, ranks)
    keeper = None
    if job.digest and _first(ranks):
        keeper = Keeper(artefact.parent, identity, _manner(spec, policy, ranks), spec.checkpoint_seconds)
    course = _resumed(saved, learner, ranks)
    outcome = optimise(learner, groups, spec, Company(meter, dev, keeper, say), course)
    watch.enter("saving")
    if not _first(ranks):
        return WorkerResult(digest, {})
    fingerprint = fingerprint_of(policy, job.selection.groups, spec.micro_batch_tokens)
    change = checked_change(fingerprint)
    policy.save(artefact)
    (artefact / FINGERPRINT_FILE).write_text(fingerprint.to_json(), encoding="utf-8")
    metrics = {
        **counted(groups),
        "mismatch": meter.mismatch,
        **_metrics(job, outcome, watch.seconds(), resumed=len(course.steps)),
        **fit.metrics(),
        "processes": float(ranks.place.count),
        "peak_memory_bytes": float(peak_bytes()),
        "change": change,
    }
    return WorkerResult(digest, metrics)


class _Watch:
    """Announces phases and times them."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._entered: list[tuple[str, float]] = []

    def enter(self, phase: str) -> None:
        self._entered.append((phase, time.monotonic()))
        self._say(PhaseEntered(phase))

    def seconds(self) -> dict[str, float]:
        """Seconds per phase, the current one until now."""
        ends = [begin for _, begin in self._entered[1:]] + [time.monotonic()]
        return {phase: end - begin for (phase, begin), end in zip(self._entered, ends, strict=True)}


def _first(ranks: Ranks) -> bool:
    return ranks.place.rank == 0


def _checked_digest(job: Job) -> str:
    digest = base_digest(Path(job.spec.base_model))
    if job.spec.start_base_digest not in (None, digest):
        raise TrainingError(
            f"the start adapter was trained on base {job.spec.start_base_digest}, training.base_model is {digest}; "
            "restore that base model, or undo to the base model first"
        )
    return digest


def _saved(job: Job, identity: str, ranks: Ranks) -> Saved | None:
    """What an earlier attempt at the same training on the same base left; every process reads the first one's."""
    if not job.digest:
        return None
    found = newest([Path(path) for path in job.spec.resume_from], identity) if _first(ranks) else None
    chosen = ranks.chosen(str(found.path) if found else "")
    return (found or read(Path(chosen))) if chosen else None


def _manner(spec: TrainingSpec, policy: Policy, ranks: Ranks) -> Manner:
    dtype = str(policy.dtype).removeprefix("torch.")
    return Manner(spec.micro_batch_tokens, spec.checkpoint_activations, dtype, ranks.place.count)


def _resumed(saved: Saved | None, learner: Learner, ranks: Ranks) -> Course:
    """The course of what was saved, with its weights; an empty one without it."""
    if saved is None:
        return Course()
    course = saved.checkpoint.course
    learner.load(saved.checkpoint.tensors)
    logger.info("training resumed", extra={"step": len(course.steps), "checkpoint": str(saved.path)})
    if saved.manner.processes != ranks.place.count:
        logger.warning(
            "resumed by another number of processes, sums round otherwise",
            extra={"before": saved.manner.processes, "now": ranks.place.count},
        )
    return course


def _metrics(job: Job, outcome: Outcome, seconds: dict[str, float], *, resumed: int) -> dict[str, float]:
    course = outcome.course
    own = sum(step.tokens for step in course.steps[resumed:])
    return {
        **course.metrics(),
        **{f"{phase}_seconds": value for phase, value in seconds.items()},
        "groups": float(len(job.selection.groups)),
        "samples": float(sum(len(group.samples) for group in job.selection.groups)),
        "dev_groups": float(len(job.dev)),
        "stopped_on_kl": float(outcome.over_budget),
        "stopped_on_dev": float(outcome.past_its_best),
        "resumed_step": float(resumed),
        "tokens_per_second": own / seconds["training"],
    }


def _check_vocabulary(policy: Policy, job: Job) -> None:
    highest = max(max(prompt + completion) for prompt, completion in job.sequences)
    if highest >= policy.vocabulary:
        raise TrainingError(
            f"the batch holds token {highest}, the base model's vocabulary has {policy.vocabulary}; "
            "set training.base_model to the folder whose weights vLLM serves"
        )
