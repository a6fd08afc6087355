"""The daemon's side: whatever the child does, the daemon gets a result or a TrainingError, and no process stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tao_daemon.config import Training
from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.ports import TrainingJob
from tao_daemon.domain.signals import MismatchMeasured, TrainingSignal, TrainingStepped
from tao_daemon.learning.contract import LOG_FILE, SPEC_FILE, TrainingSpec, decode_spec
from tao_daemon.learning.subprocess_trainer import SubprocessTrainer

SECRET = "the text of a prompt"

STUBBORN = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-c", "import os, time; os.write(2, b'up'); time.sleep(600)"], stderr=subprocess.PIPE
    )
    child.stderr.read(2)
    print('{"event": "progress", "step": %d, "steps": %d, "loss": 0, "kl": 0}' % (os.getpid(), child.pid), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path) -> Callable[[int, int], Path]:
    return lambda round_id, attempt: tmp_path / "rounds" / str(round_id) / "training" / f"attempt-{attempt}"


def fake(code: str, **settings: float) -> Training:
    return Training(command=(sys.executable, "-c", textwrap.dedent(code)), **settings)  # type: ignore[arg-type]


def job(groups: tuple[ScoredGroup, ...] = (), attempt: int = 1) -> TrainingJob:
    return TrainingJob(round=3, attempt=attempt, groups=groups, start=None, seed=5)


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Pids:
    """Collects what `STUBBORN` reports as progress: its own pid and that of its child."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.pids: tuple[int, ...] = ()

    def __call__(self, step: TrainingSignal) -> None:
        assert isinstance(step, TrainingStepped)
        self.pids = (step.step, step.steps)
        self.told.set()


async def test_trains_for_real_with_progress_and_an_artefact(
    spec: TrainingSpec, batch: list[ScoredGroup], place: Callable[[int, int], Path]
) -> None:
    settings = Training(
        base_model=Path(spec.base_model), rank=8, epochs=2, groups_per_step=4, learning_rate=5e-3, timeout_seconds=180
    )
    told: list[TrainingSignal] = []
    result = await SubprocessTrainer(settings, place).train(job(tuple(batch)), told.append)
    assert isinstance(told[0], MismatchMeasured)
    assert told[0].nats == result.metrics["mismatch"]
    assert [step.step for step in told if isinstance(step, TrainingStepped)] == [1, 2, 3, 4]
    assert {p.name for p in Path(result.directory).iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "fingerprint.json",
    }
    assert len(result.base_digest) == 64
    assert result.metrics["steps"] == 4
    written = decode_spec((place(3, 1) / SPEC_FILE).read_text())
    assert (written.base_model, written.seed, written.start_adapter) == (spec.base_model, 5, None)


async def test_a_reason_told_by_the_worker_is_the_error(tmp_path: Path, place: Callable[[int, int], Path]) -> None:
    settings = Training(base_model=tmp_path / "missing", timeout_seconds=120)
    with pytest.raises(TrainingError, match=r"missing holds no config.json"):
        await SubprocessTrainer(settings, place).train(job(), lambda step: None)


async def test_cancelling_leaves_no_process(place: Callable[[int, int], Path]) -> None:
    pids = Pids()
    trainer = SubprocessTrainer(fake(STUBBORN), place, grace_seconds=0.5)
    task = asyncio.create_task(trainer.train(job(), pids))
    async with asyncio.timeout(60):
        await pids.told.wait()
    assert all(running(pid) for pid in pids.pids)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running(pids.pids[0])
    assert await gone(pids.pids[1])


async def test_cancelling_in_the_middle_of_the_start_leaves_no_process(place: Callable[[int, int], Path]) -> None:
    mark = f"{600 + os.getpid()}.25"
    settings = Training(command=("/bin/sh", "-c", f"sleep {mark} & sleep {mark}; true"))
    trainer = SubprocessTrainer(settings, place, grace_seconds=0.5)
    for attempt in range(1, 13):
        task = asyncio.create_task(trainer.train(job(attempt=attempt), lambda step: None))
        await asyncio.sleep(0.002 * attempt)
        task.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await task
    left = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if mark in words_of(path)]
    assert all([await gone(pid) for pid in left])


def words_of(cmdline: Path) -> list[str]:
    try:
        return cmdline.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


async def test_cancelling_twice_leaves_no_process(place: Callable[[int, int], Path]) -> None:
    pids = Pids()
    trainer = SubprocessTrainer(fake(STUBBORN), place, grace_seconds=60)
    task = asyncio.create_task(trainer.train(job(), pids))
    async with asyncio.timeout(60):
        await pids.told.wait()
    task.cancel()
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all([await gone(pid) for pid in pids.pids])


async def test_the_deadline_ends_everything(place: Callable[[int, int], Path]) -> None:
    pids = Pids()
    trainer = SubprocessTrainer(fake(STUBBORN, timeout_seconds=5), place, grace_seconds=0.5)
    with pytest.raises(TrainingError, match=r"within 5 seconds and was stopped; raise training.timeout_seconds"):
        await trainer.train(job(), pids)
    assert pids.pids
    assert all([await gone(pid) for pid in pids.pids])


async def test_a_killed_child_is_a_training_error(place: Callable[[int, int], Path]) -> None:
    pids = Pids()
    task = asyncio.create_task(SubprocessTrainer(fake(STUBBORN), place, grace_seconds=0.5).train(job(), pids))
    async with asyncio.timeout(60):
        await pids.told.wait()
    os.kill(pids.pids[0], signal.SIGKILL)
    # its child holds stdout open: the trainer's end must be noticed all the same
    async with asyncio.timeout(20):
        with pytest.raises(TrainingError, match=r"killed by SIGKILL \(out of memory\?\)"):
            await task
    assert await gone(pids.pids[1])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (f"raise KeyError({SECRET!r})", r"exited with status 1 \(KeyError\)"),
        (f"import sys; print({SECRET!r}, file=sys.stderr); sys.exit(7)", "exited with status 7"),
        (f"print({SECRET!r}); print('x' * 3_000_000)", "ended without adapter_model.safetensors"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
    ],
)
async def test_an_end_without_a_reason_is_explained_without_content(
    place: Callable[[int, int], Path], code: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        await SubprocessTrainer(fake(code, timeout_seconds=60), place).train(job(), lambda step: None)
    assert SECRET not in str(caught.value)


async def test_stderr_is_kept_in_the_attempt(place: Callable[[int, int], Path]) -> None:
    with pytest.raises(TrainingError):
        await SubprocessTrainer(fake("raise KeyError('why')"), place).train(job(), lambda step: None)
    assert "KeyError: 'why'" in (place(3, 1) / LOG_FILE).read_text()


async def test_an_older_attempts_directory_is_never_reused(place: Callable[[int, int], Path]) -> None:
    place(3, 1).mkdir(parents=True)
    trainer = SubprocessTrainer(fake("pass"), place)
    with pytest.raises(TrainingError, match="another attempt owns it"):
        await trainer.train(job(), lambda step: None)
    with pytest.raises(TrainingError, match="ended without"):
        await trainer.train(job(attempt=2), lambda step: None)


async def test_a_command_that_does_not_exist_names_itself(place: Callable[[int, int], Path]) -> None:
    with pytest.raises(TrainingError, match=r"cannot start the trainer 'no-such-command'.*training.command"):
        await SubprocessTrainer(Training(command=("no-such-command",)), place).train(job(), lambda step: None)


def test_a_worker_ends_when_the_daemon_is_killed(
    spec: TrainingSpec, batch: list[ScoredGroup], write_job: Callable[[TrainingSpec, list[ScoredGroup]], Path]
) -> None:
    folder = write_job(spec, batch)
    daemon = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "worker = subprocess.Popen([sys.executable, '-m', 'tao_daemon.learning.worker', sys.argv[1]],"
            " stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
            "print(worker.pid, flush=True)\n"
            "time.sleep(600)",
            str(folder),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        time.sleep(0.5)
        assert running(pid)
        daemon.kill()
        assert asyncio.run(gone(pid))


async def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process that is not our child ends within the time."""
    deadline = time.monotonic() + seconds
    while running(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return not running(pid)
