"""A training that was killed goes on where it was, to the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save, save_file

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning import peft_trainer
from tao_daemon.learning.advantage import select
from tao_daemon.learning.contract import (
    ADAPTER_FILE,
    ARTEFACT_DIRECTORY,
    BATCH_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TrainingSpec,
    WorkerEvent,
    decode_event,
    decode_result,
    encode_group,
    encode_spec,
)
from tao_daemon.learning.course import Course, Distance, Look, Step
from tao_daemon.learning.job import Job, read_job
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.objectives.registry import build_objective
from tao_daemon.learning.parallel import ALONE, Alone
from tao_daemon.learning.peft_policy import Policy, load_policy
from tao_daemon.learning.resuming import STATE_FILE, TENSORS_FILE, Checkpoint, Keeper, Manner, newest

Many = Callable[[int], list[ScoredGroup]]
MANNER = Manner(1024, False, "float32", 1)
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
    same = (
        "steps",
        "loss",
        "kl_max",
        "dev_improvement",
        "dev_error",
        "dev_best_step",
        "dev_looks",
        "tokens",
        "dev_groups",
        "steps_kept",
    )
    assert {name: results[0][name] for name in same} == {name: results[1][name] for name in same}
    assert results[0]["resumed_step"] == 0
    assert len(steps) - 4 <= results[1]["resumed_step"] == len(steps) - len(resumed)
    assert results[0]["dev_groups"] >= 8
    assert len(list(second.glob("checkpoint-*"))) == 1  # until the directory is discarded


@pytest.mark.chaos
def test_another_trainings_checkpoint_is_left_alone(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    often = replace(spec, epochs=2, checkpoint_seconds=1e-6)
    run(prepare(tmp_path / "attempt-1", often, many(8)), kill_at=3)
    other = replace(often, learning_rate=1e-3, resume_from=(str(tmp_path / "attempt-1"),))
    assert len(run(prepare(tmp_path / "attempt-2", other, many(8)))) == 4


def checkpoint(steps: int) -> Checkpoint:
    course = Course((Step(0.5, 1.0, 0.0, 10),) * steps, (Look(1, 0.1, 0.02, 0.9),), (Distance(1, 0.01),), 1)
    return Checkpoint(course, {"weight.0": torch.arange(3.0)})


def test_the_newest_whole_one_of_the_newest_attempt_counts(tmp_path: Path) -> None:
    older, newer = tmp_path / "attempt-1", tmp_path / "attempt-2"
    for folder, steps in ((older, 9), (newer, 3)):
        folder.mkdir()
        Keeper(folder, "this", MANNER, 1.0).write(checkpoint(steps))
    found = newest([newer, older], "this")
    assert found is not None
    assert found.path == newer / "checkpoint-3"
    assert found.checkpoint.course == checkpoint(3).course
    assert found.manner == MANNER
    assert torch.equal(found.checkpoint.tensors["weight.0"], torch.arange(3.0))
    assert newest([newer, older], "other") is None

    (newer / "checkpoint-3" / TENSORS_FILE).write_bytes(b"cut")
    torn = newest([newer, older], "this")
    assert torn is not None
    assert torn.path == older / "checkpoint-9"
    (older / "checkpoint-9" / STATE_FILE).write_text(json.dumps({"format": 2, "identity": "this", "course": {}}))
    assert newest([newer, older], "this") is None


def test_one_is_kept_and_a_disk_without_room_costs_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(tmp_path, "this", MANNER, 0.0)
    for steps in (1, 2):
        keeper.write(checkpoint(steps))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    shutil.rmtree(tmp_path)
    keeper.write(checkpoint(3))
    assert "checkpoint not written" in caplog.text


def test_checkpoints_are_no_more_frequent_than_asked(tmp_path: Path) -> None:
    assert not Keeper(tmp_path, "this", MANNER, 3600.0).due
    assert Keeper(tmp_path, "this", MANNER, 0.0).due


def resumable(spec: TrainingSpec, groups: list[ScoredGroup]) -> Job:
    objective = build_objective(spec, groups)
    return Job(spec, select(groups, objective, min_spread=0.05, max_sequence_tokens=64), digest="this")


def trained(job: Job, folder: Path, *, stop_at: int = 0, free: int = 2**40) -> tuple[Mapping[str, float], bytes]:
    (folder / "artefact").mkdir(parents=True)

    def say(event: WorkerEvent) -> None:
        if isinstance(event, TrainingStepped) and event.step == stop_at:
            raise KeyboardInterrupt

    metrics = peft_trainer.train(job, folder / "artefact", say, Alone(), lambda: free).metrics
    return metrics, (folder / "artefact" / ADAPTER_FILE).read_bytes()


def test_a_resumed_training_computes_as_before_and_keeps_the_same_weights(
    spec: TrainingSpec, many: Many, tmp_path: Path
) -> None:
    """Begun with little memory and resumed with much; stopped by the KL budget after that."""
    often = replace(spec, learning_rate=2e-3, checkpoint_seconds=1e-9, memory_headroom=0.0)
    groups = many(8)
    free = int(trained(resumable(often, groups), tmp_path / "much")[0]["memory_needed_bytes"]) - 1
    whole, _ = trained(resumable(often, groups), tmp_path / "little", free=free)
    assert whole["micro_batch_tokens"] < 1024
    bound = replace(often, kl_budget=0.9 * whole["kl_max"])
    metrics, expected = trained(resumable(bound, groups), tmp_path / "unbroken", free=free)
    assert metrics["stopped_on_kl"] == 1
    with pytest.raises(KeyboardInterrupt):
        trained(resumable(bound, groups), tmp_path / "first", stop_at=3, free=free)
    job = replace(resumable(bound, groups), spec=replace(bound, resume_from=(str(tmp_path / "first"),)))
    again, found = trained(job, tmp_path / "second")
    assert again["resumed_step"] == 2
    assert again["micro_batch_tokens"] == metrics["micro_batch_tokens"]
    assert (again["steps_kept"], again["kl"]) == (metrics["steps_kept"], metrics["kl"])
    assert found == expected


def test_only_what_changes_the_outcome_makes_it_another_training(
    spec: TrainingSpec, batch: list[ScoredGroup], write_job: Callable[[TrainingSpec, list[ScoredGroup]], Path]
) -> None:
    def digest(**changes: object) -> str:
        return read_job(write_job(replace(spec, **changes), batch)).digest  # type: ignore[arg-type]

    assert digest() == digest(processes=2, checkpoint_seconds=9.0, memory_headroom=0.3, resume_from=("/before",))
    others = [digest(seed=4), digest(learning_rate=2e-2), digest(micro_batch_tokens=512)]
    assert len({digest(), *others}) == 4


def test_a_checkpoint_on_another_base_is_left_alone(spec: TrainingSpec, many: Many, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(spec.base_model, base)
    often = replace(spec, base_model=str(base), checkpoint_seconds=1e-9, epochs=1)
    trained(resumable(often, many(8)), tmp_path / "first")
    again = replace(often, resume_from=(str(tmp_path / "first"),))
    assert trained(resumable(again, many(8)), tmp_path / "second")[0]["resumed_step"] == 2
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] *= 1.01
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert trained(resumable(again, many(8)), tmp_path / "third")[0]["resumed_step"] == 0


def test_a_parameter_without_a_gradient_is_kept_as_it_is(spec: TrainingSpec, policy: Policy) -> None:
    learner = Learner(policy, build_objective(spec, []), spec, ALONE)
    for parameter in policy.parameters[1:]:
        parameter.grad = torch.ones_like(parameter)
    learner.move()
    state = load(save(learner.state()))  # of safetensors, which takes no tensor twice
    again = Learner(load_policy(spec), build_objective(spec, []), spec, ALONE)
    again.load(state)
    for each in (learner, again):
        for parameter in each.policy.parameters:
            parameter.grad = torch.ones_like(parameter)
        each.move()
    assert all(torch.equal(value, again.state()[name]) for name, value in learner.state().items())
