"""A reward model in a process of its own: a real one, tiny and random; and commands that misbehave."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import ScorerAsked, Signal
from tao_daemon.scoring import reward_process
from tao_daemon.scoring.reward_model import LocalReward, RewardModel, Sigmoid, check_classifier
from tao_daemon.scoring.reward_process import RawScores, RewardProcess
from tao_daemon.scoring.verifier import Failure
from tests.integration.scoring.tiny_rewards import reference_scores, write_reward_model

MESSAGES = [{"role": "user", "content": "good or bad ?"}]
TEXTS = ["good answer", "bad", "answer answer answer 7 7 7 7 7 7", "", "good . bad . 12"]
REQUEST = {"messages": MESSAGES, "request": "good or bad ?", "answers": TEXTS}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward_model(tmp_path_factory.mktemp("reward"))


async def test_it_scores_as_the_model_does_survives_its_death_and_ends_at_close(
    folder: Path, signals: list[Signal]
) -> None:
    """In one batch, padded, with a padding token that is part of every text. One start takes many seconds."""
    process = RewardProcess(folder)
    found = await process.ask(REQUEST, seconds=60)
    assert isinstance(found, RawScores)
    expected = reference_scores(folder, [[*MESSAGES, {"role": "assistant", "content": text}] for text in TEXTS])
    assert found.values == pytest.approx(expected, abs=1e-4)
    assert len(set(found.values)) == len(TEXTS)
    assert found.tokens > 0

    model = RewardModel("rm", LocalReward(process, timeout_seconds=60), Sigmoid(0.0, 1.0), signals.append)
    prompt = Prompt("p", {"messages": MESSAGES}, Source("t", 0, 0), received_at=0.0)
    scores = await model.grade(prompt, TEXTS)
    assert scores == [Sigmoid(0.0, 1.0)(raw) for raw in found.values] == await model.absolute(prompt, TEXTS)
    completions = Prompt("p", {"prompt": "good or bad ?"}, Source("t", 0, 0), received_at=0.0)
    assert all(isinstance(score, float) for score in await model.grade(completions, TEXTS))
    assert await model.grade(prompt, ["good " * 500]) == [Failure.ERROR], "longer than the model's context"
    told = [s for s in signals if isinstance(s, ScorerAsked)]
    assert [(s.outcome, s.prompt_tokens > 0) for s in told] == [("ok", True)] * 3 + [("failed", False)]

    first = child_of(process)
    os.kill(first.pid, signal.SIGKILL)
    assert await model.grade(prompt, TEXTS) == scores
    second = child_of(process)
    assert second.pid != first.pid
    await model.close()
    await model.close()
    assert second.returncode is not None


def child_of(process: RewardProcess) -> Any:
    assert process._child is not None
    return process._child


def fake(tmp_path: Path, body: str) -> tuple[str, str]:
    """A worker of a few lines of Python; `say` writes a reply."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys, time\nsay = lambda reply: print(json.dumps(reply), flush=True)\n" + body,
        encoding="utf-8",
    )
    return sys.executable, str(script)


async def asked(command: tuple[str, str], seconds: float = 60.0, **more: Any) -> tuple[RawScores | Failure, float]:
    process = RewardProcess(Path("unused"), command=command, **more)
    started = time.monotonic()
    try:
        return await process.ask({"answers": ["a", "b"]}, seconds=seconds), time.monotonic() - started
    finally:
        await process.close()


async def test_not_a_number_reaches_the_caller_as_a_failure(tmp_path: Path) -> None:
    command = fake(
        tmp_path, "say({'ready': 'cpu'})\nfor _ in sys.stdin: say({'scores': [float('nan'), 2], 'tokens': 3})"
    )
    found, _ = await asked(command)
    assert isinstance(found, RawScores)
    assert [Sigmoid(2.0, 1.0)(raw) for raw in found.values] == [Failure.OUT_OF_RANGE, 0.5]


READY = "say({'ready': 'cpu'})\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (READY + "for _ in sys.stdin: say({'error': 'RuntimeError'})", Failure.ERROR),
        (READY + "sys.stdin.readline()", Failure.UNAVAILABLE),
        (READY + "for _ in sys.stdin: say({'scores': [1], 'tokens': 3})", Failure.UNAVAILABLE),
        (READY + "for _ in sys.stdin: print('torch says hello', flush=True)", Failure.UNAVAILABLE),
        ("say({'failed': 'OSError: no weights'})", Failure.UNAVAILABLE),
        ("sys.exit(1)", Failure.UNAVAILABLE),
    ],
)
async def test_a_worker_that_fails(tmp_path: Path, body: str, expected: Failure) -> None:
    found, _ = await asked(fake(tmp_path, body), seconds=60.0)
    assert found is expected


async def test_a_worker_that_hangs_meets_its_deadlines(tmp_path: Path) -> None:
    found, seconds = await asked(fake(tmp_path, READY + "for _ in sys.stdin: time.sleep(60)"), seconds=0.5)
    assert found is Failure.TIMEOUT
    assert seconds < 30
    found, seconds = await asked(fake(tmp_path, "time.sleep(60)"), start_seconds=0.5)
    assert found is Failure.UNAVAILABLE
    assert seconds < 30


async def test_files_without_the_classifiers_weights_are_no_reward_model(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers would fill in random ones."""
    copy = tmp_path / "headless"
    shutil.copytree(folder, copy)
    tensors = {name: t for name, t in load_file(copy / "model.safetensors").items() if not name.startswith("score")}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    check_classifier(copy)
    process = RewardProcess(copy)
    with caplog.at_level(logging.WARNING):
        assert await process.ask(REQUEST, seconds=60) is Failure.UNAVAILABLE
    assert "lack weights" in str([record.__dict__.get("reason") for record in caplog.records])
    await process.close()


@pytest.mark.parametrize(
    "body", ["time.sleep(600)", READY + "for _ in sys.stdin: time.sleep(600)"], ids=["loading", "scoring"]
)
async def test_closing_waits_for_nobody_and_is_for_good(tmp_path: Path, body: str) -> None:
    process = RewardProcess(Path("unused"), command=fake(tmp_path, body))
    asking = asyncio.create_task(process.ask({"answers": ["a"]}, seconds=600))
    waiting = asyncio.create_task(process.ask({"answers": ["b"]}, seconds=600))
    async with asyncio.timeout(30):
        while process._child is None:
            await asyncio.sleep(0.01)
        child = child_of(process)
        await asyncio.gather(process.close(), process.close())
        assert [await asking, await waiting] == [Failure.UNAVAILABLE] * 2
        assert child.returncode is not None
        assert await process.ask({"answers": ["c"]}, seconds=600) is Failure.UNAVAILABLE
    assert process._child is None, "nobody would close another one"


async def test_a_dead_worker_is_started_once_more_in_a_call(tmp_path: Path) -> None:
    count = tmp_path / "starts"
    body = (
        f"open({str(count)!r}, 'a').write('x')\nsay({{'ready': 'cpu'}})\nsys.stdin.readline()\n"
        f"if len(open({str(count)!r}).read()) >= 2: say({{'scores': [1, 2], 'tokens': 3}})"
    )
    found, _ = await asked(fake(tmp_path, body))
    assert found == RawScores((1.0, 2.0), 3)
    assert count.read_text() == "xx"


async def test_one_that_cannot_load_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "starts"
    body = f"open({str(count)!r}, 'a').write('x')\nsay({{'failed': 'too large'}})"
    process = RewardProcess(Path("unused"), command=fake(tmp_path, body))
    assert await process.ask({"answers": ["a"]}, seconds=60) is Failure.UNAVAILABLE
    assert await process.ask({"answers": ["a"]}, seconds=60) is Failure.UNAVAILABLE
    assert count.read_text() == "x"
    monkeypatch.setattr(reward_process, "PAUSE_SECONDS", 0.0)
    process._not_before = 0.0
    assert await process.ask({"answers": ["a"]}, seconds=60) is Failure.UNAVAILABLE
    assert await process.ask({"answers": ["a"]}, seconds=60) is Failure.UNAVAILABLE
    assert len(count.read_text()) == 3, "once before the pause, twice after it"
    await process.close()


async def test_one_that_dies_while_it_loads_is_left_alone_for_a_while_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = tmp_path / "starts"
    process = RewardProcess(Path("unused"), command=fake(tmp_path, f"open({str(count)!r}, 'a').write('x')"))
    with caplog.at_level(logging.WARNING):
        found = [await process.ask({"answers": ["a"]}, seconds=60) for _ in range(3)]
    assert found == [Failure.UNAVAILABLE] * 3
    assert count.read_text() == "x"
    assert "out of memory?" in str([record.__dict__.get("reason") for record in caplog.records])
    await process.close()


async def test_a_child_that_has_ended_is_not_looked_at_before_asyncio_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks first takes its status: "Unknown child process"."""
    process = RewardProcess(Path("unused"), command=fake(tmp_path, READY + "sys.stdin.readline()"))
    looked: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "poll", lambda popen: looked.append(popen.pid))
    assert await process.ask({"answers": ["a"]}, seconds=60) is Failure.UNAVAILABLE
    assert looked == []


async def test_a_cancelled_question_is_never_taken_for_the_next_ones_answer(tmp_path: Path) -> None:
    body = (
        "say({'ready': 'cpu'})\n"
        "for line in sys.stdin:\n    time.sleep(0.5)\n    say({'scores': json.loads(line)['answers'], 'tokens': 1})"
    )
    process = RewardProcess(Path("unused"), command=fake(tmp_path, body))
    first = asyncio.create_task(process.ask({"answers": [1.0]}, seconds=60))
    while process._child is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await process.ask({"answers": [2.0]}, seconds=60) == RawScores((2.0,), 1)
    await process.close()


async def test_the_worker_ends_with_its_parent(folder: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *reward_process.WORKER, str(folder), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.close()
    async with asyncio.timeout(30):
        assert await child.wait() == 3


def test_the_sigmoid_neither_overflows_nor_loses_its_tails() -> None:
    squash = Sigmoid(center=1.0, scale=2.0)
    assert squash(1.0) == 0.5
    assert squash(3.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert (squash(-1e9), squash(1e9)) == (0.0, 1.0)
    assert [squash(raw) for raw in (math.nan, math.inf, -math.inf)] == [Failure.OUT_OF_RANGE] * 3
