"""The folders through which daemon and trainer process hand each other work: written here, judged here. No torch.

write spec and batch → (the worker) → read the result
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tao_daemon.config import Training
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.ports import Divergence, DivergenceJob, TrainingJob
from tao_daemon.learning.contract import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    ARTEFACT_DIRECTORY,
    BATCH_FILE,
    FINGERPRINT_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TrainingSpec,
    WorkerResult,
    decode_result,
    encode_group,
    encode_spec,
)
from tao_daemon.learning.divergence_contract import (
    ANSWERS_FILE,
    DIVERGENCE_FILE,
    DivergenceSpec,
    divergence_of,
    encode_answers,
    encode_divergence_spec,
)


def spec_of(job: TrainingJob, settings: Training, resume_from: tuple[str, ...] = ()) -> TrainingSpec:
    """The settings as the worker needs them; paths absolute."""
    return TrainingSpec(
        base_model=str(settings.base_model.absolute()),
        start_adapter=str(job.start.path.absolute()) if job.start else None,
        start_base_digest=job.start.lineage.base_digest if job.start else None,
        algorithm=settings.algorithm,
        rank=settings.rank,
        alpha=settings.alpha,
        learning_rate=settings.continued_learning_rate if job.start else settings.learning_rate,
        epochs=settings.epochs,
        groups_per_step=settings.groups_per_step,
        max_sequence_tokens=settings.max_sequence_tokens,
        micro_batch_tokens=settings.micro_batch_tokens,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        strategy_clip_high=settings.strategy_clip_high,
        value_temperature=settings.value_temperature,
        policy_temperature=settings.policy_temperature,
        gradient_clip=settings.gradient_clip,
        kl_budget=settings.kl_budget,
        max_mismatch=settings.max_mismatch,
        min_spread=settings.min_spread,
        min_groups=settings.min_groups,
        dev_fraction=settings.dev_fraction,
        checkpoint_seconds=settings.checkpoint_seconds,
        memory_headroom=settings.memory_headroom,
        gradient_checkpointing=settings.gradient_checkpointing,
        processes=settings.processes,
        dtype=settings.dtype,
        seed=job.seed,
        resume_from=resume_from,
    )


def write_job(directory: Path, spec: TrainingSpec, job: TrainingJob) -> None:
    """Make the attempt's directory with spec and batch. Raises TrainingError when it exists already."""
    _make(directory)
    (directory / SPEC_FILE).write_text(encode_spec(spec), encoding="utf-8")
    with (directory / BATCH_FILE).open("w", encoding="utf-8") as file:
        file.writelines(encode_group(group) + "\n" for group in job.groups)


def read_result(directory: Path) -> WorkerResult:
    """The result of a worker that exited with 0. Raises TrainingError when it left no whole artefact."""
    artefact = directory / ARTEFACT_DIRECTORY
    missing = [n for n in (ADAPTER_FILE, ADAPTER_CONFIG_FILE, FINGERPRINT_FILE) if not (artefact / n).is_file()]
    if missing:
        raise TrainingError(f"the trainer ended without {', '.join(missing)} in {artefact}; check training.command")
    with _usable_result():
        return decode_result((directory / RESULT_FILE).read_text(encoding="utf-8"))


def divergence_spec_of(job: DivergenceJob, settings: Training) -> DivergenceSpec:
    return DivergenceSpec(
        base_model=str(settings.base_model.absolute()),
        base_digest=job.candidate.lineage.base_digest,
        candidate=str(job.candidate.path.absolute()),
        start=str(job.start.path.absolute()) if job.start else None,
        micro_batch_tokens=settings.micro_batch_tokens,
        rank=settings.rank,
        memory_headroom=settings.memory_headroom,
        dtype=settings.dtype,
    )


def write_measurement(parent: Path, spec: DivergenceSpec, job: DivergenceJob) -> Path:
    """A new directory with what is to be measured. A phase that waited for a server measures again."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"divergence-{job.attempt}-", dir=parent))
    (directory / DIVERGENCE_FILE).write_text(encode_divergence_spec(spec), encoding="utf-8")
    with (directory / ANSWERS_FILE).open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in encode_answers(job.groups))
    return directory


def read_divergence(directory: Path) -> Divergence:
    """What a worker that exited with 0 measured. Raises TrainingError when it left no figures."""
    with _usable_result():
        return divergence_of(decode_result((directory / RESULT_FILE).read_text(encoding="utf-8")))


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise TrainingError(
            f"training directory {directory} exists: another attempt owns it; restart the round"
        ) from None


@contextlib.contextmanager
def _usable_result() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise TrainingError(f"the trainer ended without a usable {RESULT_FILE}: {error}") from None
