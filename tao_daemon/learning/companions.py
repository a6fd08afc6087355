"""The other processes of a training: started by the first, and ended with it.

A companion is the same worker with a rank. It ends when its stdin closes, as the first process does, so none
outlives it. When one ends badly the training is over: its reason is told and this process ends at once, whatever it
is doing, because a collective may wait long for a process that is gone.

start → (watch: first bad end → reason → exit) → ended
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.contract import TrainingFailed, decode_event, killed_by
from tao_daemon.learning.place import PEER_SECONDS, PeerLost, Place

END_SECONDS = 60.0
"""For a companion to end by itself once the training is done."""
Fail = Callable[[str], None]
"""Tells the reason and ends this process; does not return."""


def processes(wanted: int) -> int:
    """How many processes share the training: `wanted`, or for 0 one per GPU. Raises TrainingError without the GPUs."""
    gpus = torch.cuda.device_count()
    if gpus and wanted > gpus:
        raise TrainingError(f"training.processes is {wanted}, this host has {gpus} GPUs; lower it, or set it to 0")
    return wanted or max(gpus, 1)


@contextmanager
def companions(count: int, directory: Path, meeting: Path, fail: Fail) -> Iterator[None]:
    """All ranks but the first, while the block runs. Leaves no process behind."""
    processes: list[subprocess.Popen[bytes]] = []
    watchers: list[threading.Thread] = []
    done = threading.Event()
    try:
        for rank in range(1, count):
            processes.append(_start(Place(rank, count), directory, meeting))
            words = (processes[-1], rank, done, fail)
            watchers.append(threading.Thread(target=_watch, name=f"companion-{rank}", args=words, daemon=True))
            watchers[-1].start()
        yield
        done.set()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
    except PeerLost:  # seen here before a watcher has heard why
        deadline = time.monotonic() + PEER_SECONDS
        for watcher in watchers:
            watcher.join(max(deadline - time.monotonic(), 0.0))
        raise
    finally:
        done.set()
        for process in processes:
            process.kill()
            process.wait()


def _start(place: Place, directory: Path, meeting: Path) -> subprocess.Popen[bytes]:
    arguments = [str(directory), "--rank", str(place.rank), "--of", str(place.count), "--meeting", str(meeting)]
    return subprocess.Popen(
        [sys.executable, "-m", "tao_daemon.learning.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **device_of(place.rank, torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))},
    )


def device_of(rank: int, gpus: int, visible: str | None) -> dict[str, str]:
    """The environment in which a rank sees its own GPU alone, of `gpus` that this process sees (`visible` is its
    CUDA_VISIBLE_DEVICES); empty without one: then all ranks compute on the CPU."""
    if not gpus:
        return {}
    names = [name for name in (visible or "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": names[rank] if rank < len(names) else str(rank)}


def _watch(process: subprocess.Popen[bytes], rank: int, done: threading.Event, fail: Fail) -> None:
    assert process.stdout is not None
    reason = ""
    for line in process.stdout:
        match decode_event(line.decode("utf-8", errors="replace")):
            case TrainingFailed(told):
                reason = told
    status = process.wait()
    if status == 0 or done.is_set():
        return
    if status < 0:
        reason = killed_by(status)
    fail(f"process {rank} of the training: {reason or f'exited with status {status}'}")
