"""A real vLLM that serves a reward model gives the scores that the same files give in a process of our own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tao_daemon.clients.scoring_server import ScoringServer
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import Signal
from tao_daemon.embedded.processes import Command, ManagedProcess
from tao_daemon.embedded.vllm_server import EmbeddedVllm, server_env
from tao_daemon.scoring.reward_model import LocalReward, RewardModel, RewardServer, Sigmoid
from tao_daemon.scoring.reward_process import RewardProcess
from tao_daemon.scoring.verifier import Failure, Score
from tests.integration.scoring.tiny_rewards import write_reward_model

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

CHAT = Prompt("p", {"messages": [{"role": "user", "content": "good or bad ?"}]}, Source("t", 0, 0), received_at=0.0)
PLAIN = Prompt("p", {"prompt": "user good "}, Source("t", 0, 0), received_at=0.0)
TEXTS = ["good answer", "bad", "answer answer answer 7 7 7 7 7 7", "good . bad . 12"]
SIGMOID = Sigmoid(center=0.0, scale=2.0)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Path, str]]:
    """The folder of a reward model, and the address of a vLLM that serves it."""
    folder = write_reward_model(tmp_path / "reward")
    settings = EmbeddedVllm(folder, served_model_name="rm", log_path=tmp_path / "log", kv_cache_gib=1).settings
    url = f"http://127.0.0.1:{settings.port}"
    options = ("--runner", "pooling", "--dtype", "float32", "--max-model-len", "256", "--enforce-eager")
    where = ("--model", str(folder), "--served-model-name", "rm", "--host", "127.0.0.1", "--port", str(settings.port))
    argv = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", *where, *options]
    process = await ManagedProcess.start(Command("vLLM", argv, tmp_path / "log", server_env(settings)))

    async def healthy() -> bool:
        try:
            async with aiohttp.request("GET", f"{url}/health", timeout=aiohttp.ClientTimeout(total=2.0)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    try:
        await process.wait_ready(healthy, deadline_s=400.0)
        yield folder, url
    finally:
        await process.stop(10.0)


async def test_both_ways_to_a_reward_model_agree(
    served: tuple[Path, str], session: aiohttp.ClientSession, signals: list[Signal]
) -> None:
    folder, url = served
    server = ScoringServer(url, api_key=None, session=session)

    def over_http(api: str) -> RewardModel:
        source = RewardServer(server, model="rm", api=api, timeout_seconds=30.0, concurrent_requests=4)  # type: ignore[arg-type]
        return RewardModel("rm", source, SIGMOID, signals.append)

    local = RewardModel("rm", LocalReward(RewardProcess(folder), timeout_seconds=60.0), SIGMOID, signals.append)
    try:
        for prompt in (CHAT, PLAIN):
            remote, own = await over_http("pooling").grade(prompt, TEXTS), await local.grade(prompt, TEXTS)
            assert numbers(remote) == pytest.approx(numbers(own), abs=1e-4)
            assert len({round(score, 5) for score in numbers(own)}) == len(TEXTS)
    finally:
        await local.close()
    pairs = numbers(await over_http("score").grade(CHAT, TEXTS))
    assert len(pairs) == len(TEXTS)
    assert all(0.0 <= score <= 1.0 for score in pairs)
    assert await over_http("pooling").grade(CHAT, ["good " * 500]) == [Failure.ERROR], "too long for the model"


def numbers(scores: list[Score]) -> list[float]:
    assert not [score for score in scores if isinstance(score, Failure)]
    return [float(score) for score in scores]
