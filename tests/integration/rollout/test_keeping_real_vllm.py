"""The keeper against a real vLLM that is restarted under it, while somebody keeps asking as a gateway would."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.keeping import Desired, KeeperParts, KeeperSettings, ReplicaStatus
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.events import AdapterUnservable, Event, ReplicaDrifted, ReplicaHealed
from tao_daemon.domain.rollout import Routes
from tao_daemon.embedded import vllm_server
from tao_daemon.embedded.processes import free_port
from tao_daemon.embedded.vllm_server import EmbeddedVllm
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.rollout.vllm_fleet import VllmFleet

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

START_SECONDS = 240.0


class Site:
    """One server, its keeper, and what the daemon's state would be: `ask` is a gateway's point of view."""

    def __init__(self, url: str, session: aiohttp.ClientSession, adapters: DirectoryAdapterStore) -> None:
        self.client = VllmClient(url, api_key=None, session=session, retry=RetryPolicy(attempts=1))
        self.fleet = VllmFleet([self.client], base_model="base", max_rank=16, max_error=0.15)
        self.adapters = adapters
        self.routes = Routes(1, None)
        self.candidates: tuple[str, ...] = ()
        self.in_flight: set[str] = set()
        self.events: list[Event] = []
        self.answers: list[float] = []
        self.keeper = FleetKeeper(
            KeeperParts(
                fleet=self.fleet,
                adapters=adapters,
                desired=lambda: Desired(self.routes, self.candidates),
                acknowledged=lambda generation: True,
                drained=lambda name: name not in self.in_flight,
                post=self.post,
                settings=KeeperSettings(1.0, 0.3, 600.0, keep_adapters=10, touch_seconds=1.0),
            )
        )

    @property
    def status(self) -> ReplicaStatus:
        return self.keeper.report()[0]

    def post(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ReplicaDrifted):
            self.route(unready=(event.url,))
        elif isinstance(event, ReplicaHealed):
            self.route(unready=())

    def route(self, **changes: Any) -> None:
        self.routes = replace(self.routes, generation=self.routes.generation + 1, **changes)
        self.keeper.nudge()

    async def keep_asking(self, record: AdapterRecord) -> None:
        """Ask for the adapter whenever the routes allow it; how far each answer is from the trainer's, in nats."""
        probe = record.fingerprint.probes[0]
        while True:
            if self.routes.adapter == record.name and not self.routes.unready:
                with suppress(UpstreamError):
                    said = (await self.client.prompt_logprobs(record.name, [probe.token_ids]))[0][probe.start - 1 :]
                    pairs = zip(said, probe.adapter_logprobs, strict=True)
                    self.answers.append(sum(abs(a - b) for a, b in pairs) / len(said))
            await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(60):
                while not condition():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"waited for {what}: {self.status}, {self.events}") from None


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_a_restarted_server_is_refused_healed_verified_and_kept(
    tiny_model: Path,
    adapters: DirectoryAdapterStore,
    records: list[AdapterRecord],
    session: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = records
    port = free_port()
    site = Site(f"http://127.0.0.1:{port}", session, adapters)
    site.route(adapter=first.name)
    tasks = [asyncio.create_task(site.keeper.run()), asyncio.create_task(site.keep_asking(first))]

    def server(max_loras: int) -> EmbeddedVllm:
        log = tmp_path / f"vllm-{max_loras}.log"
        return EmbeddedVllm(tiny_model, served_model_name="base", log_path=log, port=port, max_loras=max_loras)

    try:
        await site.until(lambda: site.status.problems, "the keeper to look")
        with monkeypatch.context() as patch:
            patch.setattr(vllm_server, "server_env", _without_runtime_updates)
            async with server(max_loras=2):
                await _an_unfit_server_is_refused(site)
        await site.until(lambda: not site.status.reachable, "the outage to be seen")
        weights = first.path / "adapter_model.safetensors"
        good = weights.read_bytes()
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        async with server(max_loras=4):
            await _a_changed_file_is_never_loaded(site, first)
            weights.write_bytes(good)
            await site.until(lambda: site.status.ready, "the replica to be healed")
            assert [type(event) for event in site.events] == [ReplicaDrifted, AdapterUnservable, ReplicaHealed]
            assert "moves 100%" in site.events[-1].detail  # type: ignore[union-attr]
            await site.until(lambda: len(site.answers) > 20, "answers of the adapter")
            await _others_are_left_alone_and_ours_go_once_drained(site, second, tmp_path)
            await _what_vanishes_comes_back(site, first)
        assert max(site.answers) < 0.15, "an answer under the adapter's name was not the adapter's"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)


async def _an_unfit_server_is_refused(site: Site) -> None:
    await site.until(lambda: len(site.status.problems) > 3, "the refusal")
    told = " ".join(site.status.problems)
    assert "holds 2 adapters at once (--max-loras)" in told
    assert "--max-loras 4" in told
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in told
    assert "cannot serve adapters" in told
    assert site.status.reachable
    assert not site.status.ready
    assert site.status.adapters == ()


async def _a_changed_file_is_never_loaded(site: Site, record: AdapterRecord) -> None:
    await site.until(lambda: "was changed" in " ".join(site.status.problems), "the refusal of the changed file")
    assert not site.status.ready
    assert record.name not in {model.name for model in await site.client.models()}
    assert site.answers == []


async def _others_are_left_alone_and_ours_go_once_drained(site: Site, ours: AdapterRecord, tmp_path: Path) -> None:
    theirs = tmp_path / "customer"
    shutil.copytree(ours.path, theirs)
    await site.client.load_adapter("customer", str(theirs))
    site.candidates = (ours.name,)
    site.in_flight = {ours.name}
    await site.fleet.serve(ours)
    await site.until(lambda: len(site.status.adapters) == 3, "all three to be listed")
    site.candidates = ()
    site.keeper.nudge()
    await asyncio.sleep(1.5)
    assert ours.name in {model.name for model in await site.client.models()}, "a request is on it"
    site.in_flight = set()
    await site.until(lambda: ours.name not in site.status.adapters, "the adapter to be unloaded")
    assert "customer" in site.status.adapters
    assert site.status.ready


async def _what_vanishes_comes_back(site: Site, record: AdapterRecord) -> None:
    """Somebody unloads it by hand."""
    before = len(site.events)
    await site.client.unload_adapter(record.name)
    await site.until(lambda: len(site.events) == before + 2 and site.status.ready, "the replica to be healed again")
    assert f"does not list {record.name}" in site.events[before].reason  # type: ignore[union-attr]
    count = len(site.answers)
    await site.until(lambda: len(site.answers) > count + 5, "answers of the adapter")


_server_env = vllm_server.server_env


def _without_runtime_updates(settings: vllm_server.VllmSettings) -> dict[str, str]:
    return {**_server_env(settings), "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "False"}
