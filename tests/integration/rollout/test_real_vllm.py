"""Adapters made with PEFT, on a real vLLM: the fleet tells served from ignored, and a gateway swaps them live."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bench.random_adapter import publish_random_adapters
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import parse_config
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import AdapterError, UpstreamError
from tao_daemon.gateway.server import run_gateway
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.rollout.vllm_fleet import VllmFleet

pytestmark = pytest.mark.vllm


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


async def test_an_adapter_of_another_base_model_is_refused(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord], tmp_path: Path
) -> None:
    from tao_daemon.embedded.model import tiny_random_model

    other = await asyncio.to_thread(tiny_random_model, tmp_path / "other", seed=1)
    store = DirectoryAdapterStore(tmp_path / "store", max_rank=16)
    (name,) = await asyncio.to_thread(publish_random_adapters, other, tmp_path, store, 1)
    with pytest.raises(AdapterError, match="the base weights differ"):
        await fleet.serve(store.get(name))
    assert name not in await names(client)


async def test_what_the_server_cannot_find_fails_with_its_own_words(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord]
) -> None:
    with pytest.raises(UpstreamError, match="load_lora_adapter answered 4"):
        await fleet.serve(replace(records[0], path=Path("/nowhere") / records[0].name))
    assert records[0].name not in await names(client)


async def test_what_a_real_server_is_can_be_told(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord]
) -> None:
    await fleet.serve(records[0])
    (url,) = fleet.urls
    view = await fleet.observe(url)
    assert view.version == await client.version()
    assert view.process is not None
    assert view.loaded == {records[0].name: str(records[0].path)}
    assert view.problems == ()
    metrics = await client.metrics()
    assert (metrics.started_at, metrics.lora_enabled, metrics.lora_slots) == (view.process, True, 4)
    await fleet.touch(url, records[0].name)
    with pytest.raises(UpstreamError, match="404"):
        await fleet.touch(url, records[1].name)
    assert (await fleet.observe(url)).process == view.process


async def test_delivery_in_place_is_refused_by_a_real_0_32(
    fleet: VllmFleet, client: VllmClient, records: list[AdapterRecord]
) -> None:
    before = await names(client)
    with pytest.raises(
        AdapterError, match=r"vLLM 0\.32\.\d+ is not known to deliver adapters in place.*0\.33 or newer"
    ):
        await fleet.flip_in_place("assistant", records[0])
    assert await names(client) == before


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
    task = asyncio.create_task(run_gateway(config, stop, port.set_result, clock=time.time))
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
