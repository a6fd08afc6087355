"""Checkpoints of a training that runs: enough to go on with identical results after a crash.

A checkpoint is a directory `checkpoint-<step>` of safetensors and JSON, no pickle. It appears whole or not at all,
names the training and the base that it belongs to by their digests, and is only read by later attempts: an orphan that
still writes into its own directory does no harm. It says how the numbers were computed, so that a resumed training
can compute them in the same way: on a CPU the same numbers follow, on GPUs up to what their sums round otherwise.

(newest whole one of the same training) → … → write → drop the one before → … → discarded with the directory
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tao_daemon.clients.storage import publishing
from tao_daemon.learning.course import Course, course_from_json

FORMAT = 2
TENSORS_FILE = "tensors.safetensors"
STATE_FILE = "state.json"
_NAME = "checkpoint-"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    course: Course
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Manner:
    """How numbers are computed: another manner gives the same numbers but for rounding."""

    micro_batch_tokens: int
    checkpoint_activations: bool
    dtype: str
    """Of the frozen base."""
    processes: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint as it was found."""

    path: Path
    checkpoint: Checkpoint
    manner: Manner


class Keeper:
    """Writes the checkpoints of one attempt, at most one per `seconds`, and keeps the newest."""

    def __init__(self, directory: Path, identity: str, manner: Manner, seconds: float) -> None:
        """`identity`: of the training and its base; only a training of the same one resumes."""
        self._directory, self._seconds = directory, seconds
        self._said = {"format": FORMAT, "identity": identity, "manner": dataclasses.asdict(manner)}
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._written >= self._seconds

    def write(self, checkpoint: Checkpoint) -> None:
        """Durable when this returns. A disk without room costs the checkpoint, not the training."""
        step = len(checkpoint.course.steps)
        before = list(_checkpoints(self._directory))
        state = {**self._said, "course": dataclasses.asdict(checkpoint.course)}
        try:
            with publishing(self._directory / f"{_NAME}{step}") as folder:
                save_file(
                    {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()},
                    folder / TENSORS_FILE,
                )
                (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            logger.warning("checkpoint not written", extra={"step": step, "error": type(error).__name__})
        else:
            for path in before:
                shutil.rmtree(path, ignore_errors=True)
            logger.info("checkpoint written", extra={"step": step})
        self._written = time.monotonic()


def newest(directories: Sequence[Path], identity: str) -> Saved | None:
    """The newest whole checkpoint of this training: of the first directory that has one."""
    for directory in directories:
        for path in _checkpoints(directory):
            try:
                state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
                if (state["format"], state["identity"]) == (FORMAT, identity):
                    return read(path)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                logger.warning("checkpoint unreadable", extra={"path": str(path)})
    return None


def read(path: Path) -> Saved:
    """Raises OSError, ValueError, KeyError, TypeError or SafetensorError when it is not whole."""
    state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    checkpoint = Checkpoint(course_from_json(state["course"]), load_file(path / TENSORS_FILE))
    return Saved(path, checkpoint, Manner(**state["manner"]))


def _checkpoints(directory: Path) -> Iterator[Path]:
    """The newest first."""
    found = {}
    for path in directory.glob(f"{_NAME}*"):
        number = path.name.removeprefix(_NAME)
        if number.isdecimal():
            found[int(number)] = path
    for step in sorted(found, reverse=True):
        yield found[step]
