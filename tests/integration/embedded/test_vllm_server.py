"""The embedded vLLM serves chat with token ids, runs our plugin, and leaves no process behind, however it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tao_daemon.embedded.vllm_server import EmbeddedVllm

from .process_trees import descendants, survivors, watched

pytest.importorskip("vllm", reason="installed by `bash deploy/install.sh demo`")
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

START_S = 300.0
END_S = 30.0
KEY = "only-for-this-test"
REPOSITORY = Path(__file__).parents[3]

OWNER = """
import asyncio, json, sys
from pathlib import Path
from tao_daemon.embedded.vllm_server import EmbeddedVllm

async def main():
    async with EmbeddedVllm(Path(sys.argv[1]), served_model_name="base", log_path=Path(sys.argv[2])) as server:
        print(json.dumps({"pid": server.process.pid}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def chat(base_url: str, key: str) -> tuple[int, Any]:
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 5,
        "ignore_eos": True,
        "logprobs": True,
        "return_token_ids": True,
    }
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{base_url}/v1/chat/completions"
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def test_it_serves_chat_and_stop_leaves_no_process(tiny_model: Path, tmp_path: Path) -> None:
    log_path = tmp_path / "vllm.log"
    server = EmbeddedVllm(tiny_model, served_model_name="base", log_path=log_path, kv_cache_gib=1, api_key=KEY)
    async with server:
        assert server.process is not None
        status, answer = await chat(server.base_url, KEY)
        assert status == 200, answer
        assert len(answer["choices"][0]["token_ids"]) == 5
        assert len(answer["choices"][0]["logprobs"]["content"]) == 5
        assert answer["prompt_token_ids"]
        assert (await chat(server.base_url, "another key"))[0] == 401
        assert "LoRA tokens are grouped by adapter" in log_path.read_text()
        with watched([server.process.pid, *descendants(server.process.pid)]) as handles:
            # The guard, the API server, and at least the engine.
            assert len(handles) >= 3
            await server.stop()
            assert survivors(handles, deadline_s=0) == []
    assert server.process is None


async def test_when_the_owner_is_killed_no_process_is_left(tiny_model: Path, tmp_path: Path) -> None:
    argv = (sys.executable, "-c", OWNER, str(tiny_model), str(tmp_path / "vllm.log"))
    owner = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY)
    assert owner.stdout is not None
    try:
        guard = int(json.loads(await asyncio.wait_for(owner.stdout.readline(), START_S))["pid"])
        with watched([guard, *descendants(guard)]) as handles:
            assert len(handles) >= 3
            owner.send_signal(signal.SIGKILL)
            assert await asyncio.to_thread(survivors, handles, END_S) == []
    finally:
        if owner.returncode is None:
            owner.kill()
        await owner.wait()
