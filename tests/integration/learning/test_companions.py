"""What becomes of a training when one of its other processes fails: the reason is told, whoever sees the end first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.learning import companions, parallel, peft_trainer, worker
from tao_daemon.learning.contract import BATCH_FILE, SPEC_FILE, TrainingSpec, WorkerResult, encode_group, encode_spec
from tao_daemon.learning.parallel import ALONE, Ranks
from tao_daemon.learning.place import PeerLost, Place

RAISES = """
import sys
from tao_daemon.learning import worker

def broken(*arguments):
    raise MemoryError

worker._train = broken
sys.exit(worker.main(sys.argv[1:]))
"""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Companions are workers that run out of memory."""

    def start(place: Place, directory: Path, meeting: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RAISES, str(directory), "--rank", str(place.rank)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(companions, "_start", start)


@pytest.mark.usefixtures("failing")
def test_the_reason_of_a_companion_is_told_although_its_absence_is_seen_first(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(PeerLost), companions.companions(2, tmp_path, tmp_path / "meeting", told.append):
        raise PeerLost("a process of the training ended or does not answer")
    (reason,) = told
    assert reason.startswith("process 1 of the training: MemoryError: out of memory; lower training.micro_batch_tokens")


@pytest.mark.usefixtures("failing")
def test_an_error_of_its_own_waits_for_nobody(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(ZeroDivisionError), companions.companions(2, tmp_path, tmp_path / "meeting", told.append):
        raise ZeroDivisionError
    assert not told


def test_a_companion_sees_one_gpu_and_does_not_mind(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / SPEC_FILE).write_text(encode_spec(replace(spec, processes=2)))
    (tmp_path / BATCH_FILE).write_text("".join(encode_group(group) + "\n" for group in batch))
    met: list[Place] = []

    @contextmanager
    def meet(place: Place, meeting: Path) -> Iterator[Ranks]:
        met.append(place)
        yield ALONE

    monkeypatch.setattr(parallel, "meet", meet)
    monkeypatch.setattr(peft_trainer, "train", lambda *arguments: WorkerResult("", {}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    arguments = worker.Arguments(tmp_path, Place(1, 2), tmp_path / "meeting")
    worker._train(arguments, lambda event: None, lambda reason: None)
    assert met == [Place(1, 2)]


def test_each_rank_sees_its_own_gpu_and_none_where_the_first_sees_none() -> None:
    assert companions.device_of(1, 2, None) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert companions.device_of(1, 2, "4,6") == {"CUDA_VISIBLE_DEVICES": "6"}
    for hidden in ("", "-1", None):
        assert companions.device_of(1, 0, hidden) == {}, "the environment as it is, which hides them"
