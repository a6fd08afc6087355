"""The `Trainer` port: training in a child process, so that nothing it does can harm the daemon. No torch here.

Every attempt has a directory of its own and a process group of its own; neither is ever shared or reused. The
child holds the read end of a pipe that we keep open: it ends when we do. Nothing is left running when `train`
returns, raises or is cancelled.

write spec and batch → start → forward progress until stdout ends → exit status → result.json
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator
from pathlib import Path

from tao_daemon.config import Training
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.ports import Divergence, DivergenceJob, TrainingJob, TrainingResult
from tao_daemon.domain.signals import MismatchMeasured, TrainingSignal, TrainingStepped
from tao_daemon.learning.contract import (
    ARTEFACT_DIRECTORY,
    LOG_FILE,
    PhaseEntered,
    TrainingFailed,
    decode_event,
    killed_by,
)
from tao_daemon.learning.job_folders import (
    divergence_spec_of,
    read_divergence,
    read_result,
    spec_of,
    write_job,
    write_measurement,
)

AttemptDirectory = Callable[[int, int], Path]
"""Where attempt `n` of round `id` works: (round, attempt) → a path that does not exist yet."""
Progress = Callable[[TrainingSignal], None]

WORKER = (sys.executable, "-m", "tao_daemon.learning.worker")
MAX_LINE_BYTES = 1 << 20
LOG_TAIL_BYTES = 8192
_EXCEPTION_LINE = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt|Exit))\b")
logger = logging.getLogger(__name__)


class SubprocessTrainer:
    """Trains with `settings.command`, by default this Python's worker, one process per attempt."""

    def __init__(self, settings: Training, directory: AttemptDirectory, *, grace_seconds: float = 10.0) -> None:
        """`grace_seconds`: how long a child may take to end by itself before its group is killed."""
        self._settings = settings
        self._directory = directory
        self._grace_seconds = grace_seconds

    async def train(self, job: TrainingJob, progress: Progress) -> TrainingResult:
        """Train to the end or raise TrainingError. Cancelling ends everything it started."""
        directory = self._directory(job.round, job.attempt).absolute()
        earlier = [self._directory(job.round, attempt).absolute() for attempt in range(job.attempt - 1, 0, -1)]
        spec = spec_of(job, self._settings, resume_from=tuple(str(path) for path in earlier))
        await asyncio.to_thread(write_job, directory, spec, job)
        await self._run(directory, progress, "training", "lower round.prompts, round.carried_rounds or training.epochs")
        result = await asyncio.to_thread(read_result, directory)
        return TrainingResult(str(directory / ARTEFACT_DIRECTORY), result.base_digest, result.metrics)

    async def measure(self, job: DivergenceJob) -> Divergence:
        """Raises TrainingError. Cancelling ends everything it started."""
        parent = self._directory(job.round, job.attempt).absolute().parent
        directory = await asyncio.to_thread(write_measurement, parent, divergence_spec_of(job, self._settings), job)
        what, remedy = "measuring the candidate's divergence", "lower gate.divergence_prompts"
        await self._run(directory, lambda told: None, what, remedy)
        return await asyncio.to_thread(read_divergence, directory)

    async def _run(self, directory: Path, progress: Progress, what: str, remedy: str) -> None:
        """The command on a directory, to its end."""
        process = await self._started(directory)
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                with _group_ends_with(process):
                    failure = await _follow(process, progress)
                    status = await process.wait()
        except TimeoutError:
            raise TrainingError(
                f"{what} did not end within {self._settings.timeout_seconds:g} seconds and was stopped; "
                f"raise training.timeout_seconds, or {remedy}"
            ) from None
        finally:
            await self._end(process)
        if status != 0:
            raise TrainingError(failure or _explain(status, directory / LOG_FILE))

    async def _started(self, directory: Path) -> Process:
        """Cancelled in the middle of the start: asyncio would end the child alone, so the start is seen through."""
        starting = asyncio.create_task(self._start(directory))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(TrainingError):
                await self._end(await starting)
            raise

    async def _start(self, directory: Path) -> Process:
        command = self._settings.command or WORKER
        try:
            with (directory / LOG_FILE).open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    str(directory),
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=log,
                    limit=MAX_LINE_BYTES,
                    start_new_session=True,
                )
        except OSError as error:
            raise TrainingError(
                f"cannot start the trainer {command[0]!r}: {error.strerror}; check training.command"
            ) from None
        logger.info("trainer started", extra={"pid": process.pid, "directory": str(directory)})
        return process

    async def _end(self, process: Process) -> None:
        """Leave nothing of the process group behind; after a normal end only stray grandchildren."""
        assert process.stdin is not None
        process.stdin.close()
        try:
            if process.returncode is None:
                _signal_group(process, signal.SIGTERM)
                async with asyncio.timeout(self._grace_seconds):
                    await process.wait()
        except TimeoutError:
            logger.warning("trainer ignored SIGTERM and is killed", extra={"pid": process.pid})
        finally:
            _signal_group(process, signal.SIGKILL)
        await process.wait()


async def _follow(process: Process, progress: Progress) -> str:
    """Forward progress until stdout ends; returns the reason of a failure that was told, or ""."""
    assert process.stdout is not None
    failure = ""
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # longer than the limit: not ours, and the reader has discarded it
            continue
        if not line:
            return failure
        match decode_event(line.decode("utf-8", errors="replace")):
            case MismatchMeasured() | TrainingStepped() as told:
                progress(told)
            case TrainingFailed(reason):
                failure = reason
            case PhaseEntered(name):
                logger.info("trainer phase", extra={"phase": name, "pid": process.pid})


@contextlib.contextmanager
def _group_ends_with(process: Process) -> Iterator[None]:
    """Kill what is left of the group once its leader ends: a stray member would hold our pipes open."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:  # it has ended, and was reaped
        _signal_group(process, signal.SIGKILL)
        yield
        return

    def ended() -> None:
        loop.remove_reader(descriptor)
        _signal_group(process, signal.SIGKILL)

    loop.add_reader(descriptor, ended)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _explain(status: int, log: Path) -> str:
    """Words for an end without a reason. Only the class of an error is quoted: its text may hold content."""
    if status < 0:
        return f"the trainer {killed_by(status)}"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    error = next((found[1] for line in reversed(lines) if (found := _EXCEPTION_LINE.match(line))), None)
    return f"the trainer exited with status {status}" + (f" ({error})" if error else "")
