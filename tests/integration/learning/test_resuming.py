"""A training that was killed goes on where it was, to the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning.contract import (
    ADAPTER_FILE,
    ARTEFACT_DIRECTORY,
    BATCH_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TrainingSpec,
    decode_event,
    decode_result,
    encode_group,
    encode_spec,
)
from tao_daemon.learning.course import Course, Look, Step
from tao_daemon.learning.resuming import STATE_FILE, TENSORS_FILE, Checkpoint, Keeper, newest

Many = Callable[[int], list[ScoredGroup]]
SECONDS = 180


def prepare(folder: Path, spec: TrainingSpec, groups: list[ScoredGroup]) -> Path:
    folder.mkdir()
    (folder / SPEC_FILE).write_text(encode_spec(spec))
    (folder / BATCH_FILE).write_text("".join(encode_group(group) + "\n" for group in groups))
    return folder


def run(folder: Path, *, kill_at: int = 0) -> list[TrainingStepped]:
    """The steps that a worker told; SIGKILL once it tells of step `kill_at`."""
    command = [sys.executable, "-m", "tao_daemon.learning.worker", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            event = decode_event(line)
            if isinstance(event, TrainingStepped):
                told.append(event)
                if event.step == kill_at:
                    process.kill()
        status = process.wait(SECONDS)
    assert status == (-9 if kill_at else 0), event
    return told


def test_a_killed_training_resumes_to_the_same_bytes(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    groups = many(32)
    often = replace(spec, epochs=5, dev_fraction=0.4, checkpoint_seconds=1e-6)
    unbroken = prepare(tmp_path / "unbroken", often, groups)
    steps = run(unbroken)
    first = prepare(tmp_path / "attempt-1", often, groups)
    run(first, kill_at=len(steps) - 3)
    assert list(first.glob("checkpoint-*"))
    (first / "checkpoint-999").mkdir()  # an unreadable one, newer by its name

    second = prepare(tmp_path / "attempt-2", replace(often, resume_from=(str(tmp_path / "no"), str(first))), groups)
    resumed = run(second)
    adapters = [(folder / ARTEFACT_DIRECTORY / ADAPTER_FILE).read_bytes() for folder in (unbroken, second)]
    assert adapters[0] == adapters[1]
    assert resumed == steps[-len(resumed) :]
    results = [decode_result((folder / RESULT_FILE).read_text()).metrics for folder in (unbroken, second)]
    same = ("steps", "loss", "kl_max", "dev_improvement", "dev_best_step", "dev_looks", "tokens", "dev_groups")
    assert {name: results[0][name] for name in same} == {name: results[1][name] for name in same}
    assert results[0]["resumed_step"] == 0
    assert len(steps) - 4 <= results[1]["resumed_step"] == len(steps) - len(resumed)
    assert results[0]["dev_groups"] >= 8
    assert not list(second.glob("checkpoint-*"))


@pytest.mark.chaos
def test_another_trainings_checkpoint_is_left_alone(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    often = replace(spec, epochs=2, checkpoint_seconds=1e-6)
    run(prepare(tmp_path / "attempt-1", often, many(8)), kill_at=3)
    other = replace(often, learning_rate=1e-3, resume_from=(str(tmp_path / "attempt-1"),))
    assert len(run(prepare(tmp_path / "attempt-2", other, many(8)))) == 4


def checkpoint(steps: int) -> Checkpoint:
    course = Course((Step(0.5, 0.01, 1.0, 0.0, 10),) * steps, (Look(1, 0.1, 0.9),))
    return Checkpoint(course, {"weight.0": torch.arange(3.0)})


def test_the_newest_whole_one_of_the_newest_attempt_counts(tmp_path: Path) -> None:
    older, newer = tmp_path / "attempt-1", tmp_path / "attempt-2"
    for folder, steps in ((older, 9), (newer, 3)):
        folder.mkdir()
        Keeper(folder, "this", 1.0).write(checkpoint(steps))
    found = newest([newer, older], "this")
    assert found is not None
    assert found[0] == newer / "checkpoint-3"
    assert found[1].course == checkpoint(3).course
    assert torch.equal(found[1].tensors["weight.0"], torch.arange(3.0))
    assert newest([newer, older], "other") is None

    (newer / "checkpoint-3" / TENSORS_FILE).write_bytes(b"cut")
    torn = newest([newer, older], "this")
    assert torn is not None
    assert torn[0] == older / "checkpoint-9"
    (older / "checkpoint-9" / STATE_FILE).write_text(json.dumps({"format": 1, "digest": "this", "course": {}}))
    assert newest([newer, older], "this") is None


def test_one_is_kept_and_a_disk_without_room_costs_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(tmp_path, "this", 0.0)
    for steps in (1, 2):
        keeper.write(checkpoint(steps))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    keeper.clear()
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
    keeper.write(checkpoint(3))
    assert "checkpoint not written" in caplog.text


def test_checkpoints_are_no_more_frequent_than_asked(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, "this", 3600.0)
    assert not keeper.due
    assert Keeper(tmp_path, "this", 0.0).due
