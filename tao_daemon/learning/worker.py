"""The trainer process: `python -m tao_daemon.learning.worker SPEC_DIR`, the only entry to torch.

A directory with `spec.json` is trained on, one with `divergence.json` is measured.

stdout carries JSON events and nothing else; logs go to stderr. `result.json` is written last and atomically, so
whoever sees it sees a whole artefact. The process ends at once when its stdin closes, which is how it learns
that its parent died; by hand, keep stdin open (a terminal does). Exit status: 0 done, 1 failed with a `failed`
event, 2 wrong arguments, 3 stdin closed.

read spec and batch → select → (import torch) → train → artefact/ → result.json
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tao_daemon.domain.errors import TaoError
from tao_daemon.learning.checkpoints import check_adapter, check_base
from tao_daemon.learning.contract import (
    ARTEFACT_DIRECTORY,
    RESULT_FILE,
    PhaseEntered,
    TrainingFailed,
    WorkerEvent,
    WorkerResult,
    encode_event,
    encode_result,
)
from tao_daemon.learning.divergence_contract import (
    ANSWERS_FILE,
    DIVERGENCE_FILE,
    decode_answers,
    decode_divergence_spec,
    result_of,
)
from tao_daemon.learning.job import read_job
from tao_daemon.learning.place import PEER_SECONDS, PeerLost, Place

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ORPHANED = 3

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
MEETING_FILE = "meeting"
_Say = Callable[[WorkerEvent], None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arguments:
    directory: Path
    place: Place
    meeting: Path


def main(words: Sequence[str]) -> int:
    """Do what the directory asks for; returns the exit status."""
    arguments = _arguments(words)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.update(_OFFLINE)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would take the cores from a vLLM beside us
    events = _Events()
    try:
        if (arguments.directory / DIVERGENCE_FILE).is_file():
            _measure(arguments.directory, events.say)
        else:
            _train(arguments, events.say, events.fail)
    except PeerLost as error:
        if arguments.place.rank > 0:
            events.outlast()
        events.fail(str(error))
    except Exception as error:
        logger.exception("training failed")
        events.say(TrainingFailed(_reason(error)))
        return EXIT_FAILED
    return 0


def _arguments(words: Sequence[str]) -> Arguments:
    """Exits with status 2 and the usage when they are wrong."""
    parser = argparse.ArgumentParser("python -m tao_daemon.learning.worker")
    parser.add_argument("directory", metavar="SPEC_DIR", type=Path)
    companion = parser.add_argument_group("companions, which the worker starts itself")
    companion.add_argument("--rank", type=int, default=0)
    companion.add_argument("--of", type=int, default=1)
    companion.add_argument("--meeting", type=Path, default=Path())
    found = parser.parse_args(words)
    return Arguments(found.directory, Place(found.rank, found.of), found.meeting)


def _measure(directory: Path, say: _Say) -> None:
    spec = decode_divergence_spec((directory / DIVERGENCE_FILE).read_text(encoding="utf-8"))
    check_base(Path(spec.base_model))
    for adapter in filter(None, (spec.candidate, spec.start)):
        check_adapter(Path(adapter))
    with (directory / ANSWERS_FILE).open(encoding="utf-8") as lines:
        answers = decode_answers(lines)
    from tao_daemon.learning import divergence

    say(PhaseEntered("measuring"))
    _write_last(directory / RESULT_FILE, result_of(spec.base_digest, divergence.measure(spec, answers)))


def _train(arguments: Arguments, say: _Say, fail: Callable[[str], None]) -> None:
    directory, place = arguments.directory, arguments.place
    job = read_job(directory)
    artefact = directory / ARTEFACT_DIRECTORY
    if place.rank == 0:
        artefact.mkdir()
    # here, so that a bad batch fails without loading torch
    from tao_daemon.learning import companions, parallel, peft_trainer

    if place.rank > 0:  # with its own GPU in sight only: how many there are was the first process's to judge
        with parallel.meet(place, arguments.meeting) as ranks:
            peft_trainer.train(job, artefact, lambda event: None, ranks)
        return
    count = companions.processes(job.spec.processes)
    meeting = directory / MEETING_FILE
    with companions.companions(count, directory, meeting, fail), parallel.meet(Place(0, count), meeting) as ranks:
        result = peft_trainer.train(job, artefact, say, ranks)
    dropped = {f"dropped_groups_{why}": float(n) for why, n in job.selection.dropped_groups.items()}
    dropped |= {f"dropped_samples_{why}": float(n) for why, n in job.selection.dropped_samples.items()}
    _sync(artefact)
    _write_last(directory / RESULT_FILE, WorkerResult(result.base_digest, {**result.metrics, **dropped}))


class _Events:
    """stdout for events alone: whatever libraries print, from Python or C, goes to stderr from now on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, event: WorkerEvent) -> None:
        with self._lock:
            print(encode_event(event), file=self._file, flush=True)

    def fail(self, reason: str) -> None:
        """Tell the reason and end at once, whatever the other threads do."""
        with self._lock:
            print(encode_event(TrainingFailed(reason)), file=self._file, flush=True)
            os._exit(EXIT_FAILED)

    def outlast(self) -> None:
        """Give the first process time to tell how another companion ended, which ends this one too."""
        threading.Event().wait(PEER_SECONDS)


def _end_with_parent() -> None:
    """End at once, whatever the other threads do, when the other end of stdin is gone."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os._exit(EXIT_ORPHANED)


def _reason(error: Exception) -> str:
    """Words for the daemon's journal. Unforeseen messages are cut to one line, as they may quote data."""
    if isinstance(error, TaoError | ValueError | OSError):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    name = type(error).__name__
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", first, re.IGNORECASE):
        return f"{name}: out of memory; lower training.micro_batch_tokens or training.max_sequence_tokens"
    return f"{name}: {first[:200]}" if isinstance(error, RuntimeError | ImportError) else name


def _sync(directory: Path) -> None:
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_last(path: Path, result: WorkerResult) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(encode_result(result))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
