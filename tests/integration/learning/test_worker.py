"""The worker as its users start it: a process that speaks JSON lines and dies with its parent."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning.contract import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    ARTEFACT_DIRECTORY,
    BATCH_FILE,
    FINGERPRINT_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TrainingFailed,
    TrainingSpec,
    WorkerEvent,
    decode_event,
    decode_result,
)
from tao_daemon.learning.peft_policy import Policy, load_policy

SECONDS = 180
Write = Callable[[TrainingSpec, list[ScoredGroup]], Path]


@contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The process; killed at the end if it still runs, and by a timer if it hangs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tao_daemon.learning.worker", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        with process:
            yield process
            process.kill()
    finally:
        timer.cancel()


def run(folder: Path) -> tuple[int, list[WorkerEvent]]:
    """Exit status and events; every line of stdout must be one."""
    with worker(str(folder)) as process:
        assert process.stdout is not None
        events = [decode_event(line) for line in process.stdout]
        status = process.wait(30)
    assert None not in events
    return status, [event for event in events if event is not None]


def edit_spec(folder: Path, **changes: Any) -> None:
    path = folder / SPEC_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_end_to_end(
    spec: TrainingSpec,
    policy: Policy,
    batch: list[ScoredGroup],
    write_job: Write,
    target_probability: Callable[[Policy], float],
) -> None:
    flat = replace(batch[0], rewards=(0.5,) * 6)
    folder = write_job(replace(spec, clip_high=9.0), [*batch, flat])
    status, events = run(folder)
    assert status == 0
    assert sum(isinstance(event, TrainingStepped) for event in events) == 8

    artefact = folder / ARTEFACT_DIRECTORY
    assert {p.name for p in artefact.iterdir()} == {ADAPTER_FILE, ADAPTER_CONFIG_FILE, FINGERPRINT_FILE}
    result = decode_result((folder / RESULT_FILE).read_text())
    assert result.metrics["groups"] == 8
    assert result.metrics["dropped_groups_no_spread"] == 1
    trained = load_policy(replace(spec, start_adapter=str(artefact)))
    assert target_probability(trained) > 2 * target_probability(policy)


def test_ends_at_once_when_its_parent_is_gone(spec: TrainingSpec, batch: list[ScoredGroup], write_job: Write) -> None:
    with worker(str(write_job(replace(spec, epochs=100_000, kl_budget=1e9), batch))) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert any(isinstance(decode_event(line), TrainingStepped) for line in process.stdout)
        process.stdin.close()
        assert process.wait(10) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": "many"}, "rank is 'many', expected int"),
        ({"base_model": "/nowhere"}, "base model folder /nowhere holds no config.json"),
        ({"algorithm": "magic"}, "algorithm 'magic' is unknown"),
        ({"min_groups": 50}, "8 of 8 groups can teach (none dropped), training.min_groups is 50"),
        ({"max_sequence_tokens": 3}, "0 of 8 groups can teach (8 no_signal)"),
        ({"start_adapter": "/nowhere"}, "start adapter /nowhere holds no adapter_model.safetensors"),
    ],
)
def test_what_cannot_be_trained_fails_with_a_reason(
    spec: TrainingSpec, batch: list[ScoredGroup], write_job: Write, changes: dict[str, Any], message: str
) -> None:
    folder = write_job(spec, batch)
    edit_spec(folder, **changes)
    status, events = run(folder)
    assert status == 1
    assert isinstance(events[-1], TrainingFailed)
    assert message in events[-1].reason
    assert not (folder / RESULT_FILE).exists()


@pytest.mark.parametrize(
    ("batch_text", "message"), [("", "0 of 0 groups can teach"), ("{}\n", "batch.jsonl line 1"), (None, "No such file")]
)
def test_a_batch_that_is_none_fails_with_a_reason(
    spec: TrainingSpec, write_job: Write, batch_text: str | None, message: str
) -> None:
    folder = write_job(spec, [])
    (folder / BATCH_FILE).unlink()
    if batch_text is not None:
        (folder / BATCH_FILE).write_text(batch_text)
    status, events = run(folder)
    assert status == 1
    assert isinstance(events[-1], TrainingFailed)
    assert message in events[-1].reason


def test_an_artefact_is_never_overwritten(spec: TrainingSpec, batch: list[ScoredGroup], write_job: Write) -> None:
    folder = write_job(spec, batch)
    (folder / ARTEFACT_DIRECTORY).mkdir()
    status, events = run(folder)
    assert status == 1
    assert isinstance(events[-1], TrainingFailed)
    assert "File exists" in events[-1].reason


def test_wrong_arguments_show_the_usage() -> None:
    with worker() as process:
        assert process.wait(60) == 2
        assert process.stderr is not None
        assert "SPEC_DIR" in process.stderr.read()
