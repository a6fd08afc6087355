"""The trainer process: `python -m tao_daemon.learning.worker SPEC_DIR`, the only entry to torch.

stdout carries JSON events and nothing else; logs go to stderr. `result.json` is written last and atomically, so
whoever sees it sees a whole artefact. The process ends at once when its stdin closes, which is how it learns
that its parent died; by hand, keep stdin open (a terminal does). Exit status: 0 done, 1 failed with a `failed`
event, 2 wrong arguments, 3 stdin closed.

read spec and batch → select → (import torch) → train → artefact/ → result.json
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from tao_daemon.domain.errors import TaoError, TrainingError
from tao_daemon.learning.advantage import Selection, select
from tao_daemon.learning.checkpoints import check_base, check_start, context_tokens
from tao_daemon.learning.contract import (
    ARTEFACT_DIRECTORY,
    BATCH_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TrainingFailed,
    TrainingSpec,
    WorkerEvent,
    WorkerResult,
    decode_batch,
    decode_spec,
    encode_event,
    encode_result,
)

ALGORITHM = "clipped_policy_gradient"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ORPHANED = 3

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_Say = Callable[[WorkerEvent], None]
logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run one training; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tao_daemon.learning.worker SPEC_DIR", file=sys.stderr)
        return EXIT_USAGE
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.update(_OFFLINE)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would take the cores from a vLLM beside us
    events = _claim_stdout()

    def say(event: WorkerEvent) -> None:
        print(encode_event(event), file=events, flush=True)

    try:
        _run(Path(arguments[0]), say)
    except Exception as error:
        logger.exception("training failed")
        say(TrainingFailed(_reason(error)))
        return EXIT_FAILED
    return 0


def _run(directory: Path, say: _Say) -> None:
    spec, selection = _read(directory)
    artefact = directory / ARTEFACT_DIRECTORY
    artefact.mkdir()
    from tao_daemon.learning import peft_trainer  # here, so that a bad batch fails without loading torch

    result = peft_trainer.train(spec, selection, artefact, say)
    dropped = {f"dropped_groups_{why}": float(n) for why, n in selection.dropped_groups.items()}
    dropped |= {f"dropped_samples_{why}": float(n) for why, n in selection.dropped_samples.items()}
    _sync(artefact)
    _write_last(directory / RESULT_FILE, WorkerResult(result.base_digest, {**result.metrics, **dropped}))


def _read(directory: Path) -> tuple[TrainingSpec, Selection]:
    spec = decode_spec((directory / SPEC_FILE).read_text(encoding="utf-8"))
    if spec.algorithm != ALGORITHM:
        raise TrainingError(
            f"algorithm {spec.algorithm!r} is unknown to this worker; set training.algorithm to {ALGORITHM}"
        )
    base = Path(spec.base_model)
    check_base(base)
    if spec.start_adapter is not None:
        check_start(Path(spec.start_adapter), rank=spec.rank, alpha=spec.alpha)
    with (directory / BATCH_FILE).open(encoding="utf-8") as lines:
        groups = decode_batch(lines)
    limit = min(spec.max_sequence_tokens, context_tokens(base) or spec.max_sequence_tokens)
    selection = select(groups, min_spread=spec.min_spread, max_sequence_tokens=limit)
    if len(selection.groups) < max(spec.min_groups, 1):
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(selection.dropped_groups.items())) or "none dropped"
        raise TrainingError(
            f"{len(selection.groups)} of {len(groups)} groups can teach ({why}), training.min_groups is "
            f"{spec.min_groups}; check the scorers, raise sampling.completions or round.prompts"
        )
    return spec, selection


def _claim_stdout() -> TextIO:
    """stdout for events alone: whatever libraries print, from Python or C, goes to stderr from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


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
