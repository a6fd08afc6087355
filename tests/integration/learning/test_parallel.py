"""Several processes train as one does; one that dies ends the training with its reason and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning import companions
from tao_daemon.learning.contract import (
    ADAPTER_FILE,
    ARTEFACT_DIRECTORY,
    BATCH_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TrainingFailed,
    TrainingSpec,
    WorkerEvent,
    decode_event,
    decode_result,
    encode_group,
    encode_spec,
)

Many = Callable[[int], list[ScoredGroup]]
SECONDS = 240


def started(folder: Path, spec: TrainingSpec, groups: list[ScoredGroup]) -> subprocess.Popen[str]:
    folder.mkdir()
    (folder / SPEC_FILE).write_text(encode_spec(spec))
    (folder / BATCH_FILE).write_text("".join(encode_group(group) + "\n" for group in groups))
    command = [sys.executable, "-m", "tao_daemon.learning.worker", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def steps_of(folder: Path, spec: TrainingSpec, groups: list[ScoredGroup]) -> list[TrainingStepped]:
    with started(folder, spec, groups) as process:
        assert process.stdout is not None
        events = [decode_event(line) for line in process.stdout]
        assert process.wait(SECONDS) == 0, events[-1]
    return [event for event in events if isinstance(event, TrainingStepped)]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_processes_train_as_one(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    """Sums of gradients round differently, and Adam's first steps amplify that where a gradient is nearly 0."""
    groups = many(32)
    split = replace(spec, epochs=2, groups_per_step=3, dev_fraction=0.4)
    alone = steps_of(tmp_path / "one", split, groups)
    together = steps_of(tmp_path / "two", replace(split, processes=2), groups)
    assert [(s.step, s.steps) for s in together] == [(s.step, s.steps) for s in alone]
    assert [s.loss for s in together] == pytest.approx([s.loss for s in alone], rel=1e-3, abs=1e-5)
    assert [s.kl for s in together] == pytest.approx([s.kl for s in alone], rel=1e-2, abs=1e-6)
    weights = [load_file(tmp_path / name / ARTEFACT_DIRECTORY / ADAPTER_FILE) for name in ("one", "two")]
    one, two = (torch.cat([w.flatten() for _, w in sorted(each.items())]) for each in weights)
    assert float((one - two).norm() / one.norm()) < 1e-3
    metrics = [decode_result((tmp_path / name / RESULT_FILE).read_text()).metrics for name in ("one", "two")]
    assert [each["processes"] for each in metrics] == [1, 2]
    for name in ("tokens", "dev_groups", "dev_looks", "steps", "samples"):
        assert metrics[0][name] == metrics[1][name]
    assert metrics[1]["dev_improvement"] == pytest.approx(metrics[0]["dev_improvement"], rel=1e-2)
    assert not list((tmp_path / "two").glob("meeting*"))


@pytest.mark.chaos
def test_a_process_that_dies_ends_the_training_with_its_reason(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    endless = replace(spec, epochs=100_000, kl_budget=1e9, processes=3)
    with started(tmp_path / "job", endless, many(8)) as process:
        assert process.stdout is not None
        events: list[WorkerEvent | None] = []
        others: list[int] = []
        for line in process.stdout:
            events.append(decode_event(line))
            if not others and isinstance(events[-1], TrainingStepped):
                others = children(process.pid)
                os.kill(others[1], signal.SIGKILL)
        assert process.wait(SECONDS) == 1
    assert len(others) == 2
    assert isinstance(events[-1], TrainingFailed)
    assert events[-1].reason == "process 2 of the training: was killed by SIGKILL (out of memory?)"
    deadline = time.monotonic() + 20
    while any(map(running, others)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, others))


@pytest.mark.chaos
def test_no_process_outlives_the_first(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    endless = replace(spec, epochs=100_000, kl_budget=1e9, processes=2)
    with started(tmp_path / "job", endless, many(8)) as process:
        assert process.stdout is not None
        assert any(isinstance(decode_event(line), TrainingStepped) for line in process.stdout)
        (other,) = children(process.pid)
        process.kill()
    deadline = time.monotonic() + 20
    while running(other) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(other)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert companions.processes(0) == max(torch.cuda.device_count(), 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert companions.processes(0) == 2
    with pytest.raises(TrainingError, match="processes is 3, this host has 2 GPUs"):
        companions.processes(3)
