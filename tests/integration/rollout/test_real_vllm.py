"""Adapters made with PEFT, on a real vLLM: the fleet tells served from ignored, and a gateway swaps them live."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import parse_config
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, FingerprintProbe, Lineage
from tao_daemon.domain.errors import AdapterError, UpstreamError
from tao_daemon.gateway.server import run_gateway
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.rollout.vllm_fleet import VllmFleet

pytestmark = pytest.mark.vllm

PROBES, PROMPT, COMPLETION = 4, 6, 24


def train(model_dir: Path, directory: Path, *, seed: int) -> Path:
    """A LoRA with random weights, and what transformers computes for it: an artefact as the trainer leaves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted: Any = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=names)).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    ids = torch.randint(3, model.config.vocab_size, (PROBES, PROMPT + COMPLETION))

    def logprobs() -> list[tuple[float, ...]]:
        with torch.no_grad():
            rows = torch.log_softmax(adapted(ids).logits[:, :-1].float(), -1)
        found = rows.gather(-1, ids[:, 1:, None])[..., 0][:, PROMPT - 1 :]
        return [tuple(row.tolist()) for row in found]

    with_adapter = logprobs()
    with adapted.disable_adapter():
        with_base = logprobs()
    adapted.save_pretrained(directory)
    probes = [
        FingerprintProbe(tuple(row), PROMPT, a, b)
        for row, a, b in zip(ids.tolist(), with_adapter, with_base, strict=True)
    ]
    (directory / "fingerprint.json").write_text(Fingerprint(tuple(probes)).to_json())
    return directory


@pytest.fixture(scope="module")
def records(tiny_vllm: Any, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRecord]:
    """Two adapters in a store."""
    root = tmp_path_factory.mktemp("adapters")
    store = DirectoryAdapterStore(root / "store", max_rank=16)
    found = []
    for number in (1, 2):
        artefact = train(tiny_vllm.model, root / f"artefact-{number}", seed=number)
        lineage = Lineage(number, None, "base", "0" * 64, (), (), os.urandom(8).hex())
        found.append(store.publish(str(artefact), lineage, 0.0))
    return found


@pytest.fixture
async def client(tiny_vllm: Any) -> AsyncIterator[VllmClient]:
    async with aiohttp.ClientSession() as session:
        yield VllmClient(tiny_vllm.url, api_key=None, session=session)


@pytest.fixture
async def fleet(client: VllmClient, records: list[AdapterRecord]) -> AsyncIterator[VllmFleet]:
    fleet = VllmFleet([client], base_model="base", max_rank=16, max_error=0.15)
    yield fleet
    for record in records:
        await fleet.retire(record.name)


async def names(client: VllmClient) -> set[str]:
    return {model.name for model in await client.models()}


async def test_a_real_adapter_is_loaded_verified_and_retired(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord]
) -> None:
    report = await fleet.serve(records[0])
    assert "moves 100%" in report or "moves 99%" in report or "moves 101%" in report
    assert await fleet.serve(records[0]) == report
    await fleet.serve(records[1])
    assert await names(client) >= {"base", records[0].name, records[1].name}
    await fleet.retire(records[0].name)
    await fleet.retire(records[0].name)
    assert records[0].name not in await names(client)


async def test_wrong_module_names_load_with_200_and_are_refused(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    artefact = tmp_path / "artefact"
    shutil.copytree(records[0].path, artefact, ignore=shutil.ignore_patterns("manifest.json"))
    arrays = load_file(artefact / "adapter_model.safetensors")
    renamed = {name.replace("model.model.layers", "model.layers"): value for name, value in arrays.items()}
    assert renamed.keys() != arrays.keys()
    save_file(renamed, artefact / "adapter_model.safetensors")
    store = DirectoryAdapterStore(tmp_path / "store", max_rank=16)
    spoiled = store.publish(str(artefact), records[0].lineage, 0.0)
    with pytest.raises(AdapterError, match="serves the base model"):
        await fleet.serve(spoiled)
    assert spoiled.name not in await names(client)


async def test_another_adapters_fingerprint_is_refused(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord]
) -> None:
    with pytest.raises(AdapterError, match="does not serve"):
        await fleet.serve(replace(records[0], fingerprint=records[1].fingerprint))
    assert records[0].name not in await names(client)


async def test_what_the_server_cannot_find_fails_with_its_own_words(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord]
) -> None:
    with pytest.raises(UpstreamError, match="load_lora_adapter answered 4"):
        await fleet.serve(replace(records[0], path=Path("/nowhere") / records[0].name))
    assert records[0].name not in await names(client)


async def test_the_client_reads_health_version_and_queue(client: VllmClient) -> None:
    assert await client.healthy()
    assert (await client.version())[0].isdigit()
    assert await client.waiting_requests() >= 0


async def test_a_gateway_swaps_adapters_on_live_streams_and_falls_back(
    fleet: VllmFleet, records: list[AdapterRecord], tiny_vllm: Any, tmp_path: Path
) -> None:
    first, second = records
    await fleet.serve(first)
    await fleet.serve(second)
    routes = tmp_path / "routes.json"
    _write(routes, 1, first.name, None)
    config = parse_config(
        {
            "serving": {"replicas": [tiny_vllm.url], "base_model": "base"},
            "gateway": {"port": 0, "daemon_url": "http://127.0.0.1:1", "routes_file": str(routes)},
        }
    )
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_gateway(config, stop, port.set_result))
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{await port}/v1/chat/completions"
        assert await _ask(session, url) == first.name
        swap = asyncio.create_task(_flip(routes, first.name, second.name))
        seen = await asyncio.gather(*(_keep_asking(session, url, swap) for _ in range(6)))
        assert {version for versions in seen for version in versions} == {first.name, second.name}
        await fleet.retire(second.name)
        assert await _ask(session, url) == first.name
        await fleet.retire(first.name)
        assert await _ask(session, url) == "base"
    stop.set()
    await asyncio.wait_for(task, 10)


async def _flip(routes: Path, first: str, second: str) -> None:
    for generation in range(2, 6):
        await asyncio.sleep(1.0)
        adapter, previous = (second, first) if generation % 2 == 0 else (first, second)
        _write(routes, generation, adapter, previous)
    _write(routes, 6, second, first)
    await asyncio.sleep(1.0)


async def _keep_asking(session: aiohttp.ClientSession, url: str, swap: asyncio.Task[None]) -> set[str]:
    seen = set()
    while not swap.done():
        seen.add(await _ask(session, url))
    return seen


async def _ask(session: aiohttp.ClientSession, url: str) -> str:
    """One streamed answer, complete and under the public name; the version that gave it."""
    body = {"model": "assistant", "stream": True, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    async with session.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        parts = [part.removeprefix("data: ") for part in (await response.text()).split("\n\n") if part]
    assert parts.pop() == "[DONE]"
    assert {json.loads(part)["model"] for part in parts} == {"assistant"}
    return response.headers["X-Tao-Version"]


def _write(path: Path, generation: int, adapter: str | None, previous: str | None) -> None:
    path.write_text(json.dumps({"generation": generation, "adapter": adapter, "previous": previous}))
