"""The Fleet port: the same promises of the one in memory and of the real one, here over servers that fail on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, FingerprintProbe, Lineage
from tao_daemon.domain.errors import AdapterError, ServerUnfit, UpstreamError
from tao_daemon.domain.ports import Fleet
from tao_daemon.rollout.memory_fleet import MemoryFleet
from tao_daemon.rollout.vllm_fleet import VllmFleet

# What a server in good health may take, however busy the machine is; and what a test waits for one that hangs.
PATIENT, IMPATIENT = 30.0, 0.5
LINEAGE = Lineage(1, None, "base", "", (), (), "")


def value(model: str, position: int, token: int) -> float:
    """What a model says; adapters differ from the base and from each other."""
    shift = 0.0 if model == "base" else 0.4 + 0.01 * len(model)
    return -1.0 - (token * 37 + position * 11) % 7 * 0.1 - shift * (1 + position % 3)


def record(name: str, rank: int = 8) -> AdapterRecord:
    tokens = tuple(range(3, 20))
    values = {m: tuple(value(m, p, tokens[p]) for p in range(4, len(tokens))) for m in (name, "base")}
    probe = FingerprintProbe(tokens, 4, values[name], values["base"])
    return AdapterRecord(name, name * 2, Path("/store") / name, rank, 0.0, LINEAGE, Fingerprint((probe,)))


class Replica:
    """A server with vLLM's routes. `behaviour` says how it treats an adapter: served, ignored, refused, hanging."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.loads = 0
        self.spoiled: set[str] = set()
        self.behaviour = "served"
        self.version = "0.32.0"
        self.max_loras = 4
        self.process = 100.0
        self.requests = 0
        self.reads = 0
        self.app = web.Application()
        self.app.router.add_get("/v1/models", self.models)
        self.app.router.add_post("/v1/load_lora_adapter", self.load)
        self.app.router.add_post("/v1/unload_lora_adapter", self.unload)
        self.app.router.add_post("/v1/completions", self.complete)
        self.app.router.add_get("/version", self.tell_version)
        self.app.router.add_get("/metrics", self.metrics)

    def restart(self) -> None:
        self.loaded.clear()
        self.process += 1.0
        self.requests = 0

    async def tell_version(self, request: web.Request) -> web.Response:
        self.reads += 1
        return web.json_response({"version": self.version})

    async def metrics(self, request: web.Request) -> web.Response:
        """As vLLM: the slots are told once there was a request."""
        lines = [f"process_start_time_seconds {self.process}", "# TYPE vllm:lora_requests_info gauge"]
        if self.requests:
            lines.append(f'vllm:lora_requests_info{{max_lora="{self.max_loras}",running_lora_adapters=""}} 1.0')
        return web.Response(text="\n".join(lines) + "\n")

    async def models(self, request: web.Request) -> web.Response:
        cards = [{"id": "base", "root": "/model", "parent": None}]
        cards += [{"id": name, "root": path, "parent": "base"} for name, path in self.loaded.items()]
        return web.json_response({"data": cards})

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not body["lora_name"]:
            return web.json_response({"error": {"message": "must be provided"}}, status=400)
        self.loads += 1
        if self.behaviour == "refused":
            return web.json_response({"error": {"message": "no slot left"}}, status=500)
        if self.behaviour == "hanging":
            await asyncio.sleep(60)
        if body["lora_name"] in self.loaded and not body.get("load_inplace"):
            return web.json_response({"error": {"message": "already been loaded"}}, status=400)
        self.loaded[body["lora_name"]] = body["lora_path"]
        self.spoiled.discard(body["lora_name"])
        return web.Response(text="Success")

    async def unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.loaded.pop(name, None) is None:
            return web.json_response({"error": {"message": "cannot be found"}}, status=404)
        return web.Response(text="Success")

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        model, prompts = body["model"], body["prompt"]
        self.requests += 1
        if model != "base" and model not in self.loaded:
            return web.json_response({"error": {"message": "does not exist"}}, status=404)
        if self.behaviour == "deaf":
            return web.json_response({"error": {"message": "broken"}}, status=500)
        model = (
            "base"
            if self.behaviour == "ignored" or model in self.spoiled
            else self.loaded.get(model, model).rpartition("/")[2]
        )
        if body.get("prompt_logprobs") is None:
            return web.json_response({"choices": [{"index": 0, "text": "x"}]})
        choices = [
            {
                "index": index,
                "prompt_logprobs": [
                    None,
                    *({str(t): {"logprob": value(model, p, t)}} for p, t in list(enumerate(tokens))[1:]),
                ],
            }
            for index, tokens in enumerate(prompts)
        ]
        return web.json_response({"choices": choices[::-1]})


class Rig(Protocol):
    fleet: Fleet

    def serving(self) -> list[set[str]]:
        """The adapters on each replica."""
        ...

    def fail(self, name: str, kind: type[Exception]) -> None: ...

    def restart(self, index: int) -> None: ...

    def spoil(self, index: int, name: str) -> None:
        """What the replica says under the name is something else, until the adapter is loaded again."""
        ...


class MemoryRig:
    def __init__(self) -> None:
        self.memory = MemoryFleet([f"http://memory-{number}" for number in range(3)])
        self.fleet: Fleet = self.memory

    def serving(self) -> list[set[str]]:
        return [set(names) for names in self.memory.loaded.values()]

    def fail(self, name: str, kind: type[Exception]) -> None:
        self.memory.failures[name] = AdapterError("x") if kind is AdapterError else UpstreamError("x")

    def restart(self, index: int) -> None:
        self.memory.restart(self.memory.urls[index])

    def spoil(self, index: int, name: str) -> None:
        self.memory.untrue.add((self.memory.urls[index], name))


class VllmRig:
    def __init__(self, replicas: list[Replica], clients: list[VllmClient]) -> None:
        self.replicas = replicas
        self.vllm = VllmFleet(clients, base_model="base", max_rank=16, max_error=0.15)
        self.fleet: Fleet = self.vllm

    def serving(self) -> list[set[str]]:
        return [set(replica.loaded) for replica in self.replicas]

    def fail(self, name: str, kind: type[Exception]) -> None:
        self.replicas[1].behaviour = "ignored" if kind is AdapterError else "refused"

    def restart(self, index: int) -> None:
        self.replicas[index].restart()

    def spoil(self, index: int, name: str) -> None:
        self.replicas[index].spoiled.add(name)


@pytest.fixture
def load_seconds() -> float:
    return PATIENT


@pytest.fixture
async def vllm_rig(load_seconds: float) -> AsyncIterator[VllmRig]:
    replicas = [Replica(), Replica(), Replica()]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        clients = []
        for replica in replicas:
            server = await stack.enter_async_context(TestServer(replica.app))
            retry = RetryPolicy(attempts=1)
            url = str(server.make_url("/"))
            waits = {"load_seconds": load_seconds, "admin_seconds": PATIENT}
            clients.append(VllmClient(url, api_key=None, session=session, retry=retry, **waits))
        yield VllmRig(replicas, clients)


@pytest.fixture(params=["memory", "vllm"])
def rig(request: pytest.FixtureRequest) -> Rig:
    made: Rig = MemoryRig() if request.param == "memory" else request.getfixturevalue("vllm_rig")
    return made


async def test_serve_is_everywhere_and_idempotent(rig: Rig) -> None:
    assert await rig.fleet.serve(record("r000001-aa"))
    assert await rig.fleet.serve(record("r000001-aa"))
    await rig.fleet.serve(record("r000002-bbb"))
    assert all(names == {"r000001-aa", "r000002-bbb"} for names in rig.serving())


@pytest.mark.parametrize("kind", [AdapterError, UpstreamError])
async def test_a_failure_leaves_the_adapter_nowhere_and_the_others_alone(rig: Rig, kind: type[Exception]) -> None:
    await rig.fleet.serve(record("r000001-aa"))
    rig.fail("r000002-bbb", kind)
    with pytest.raises(kind):
        await rig.fleet.serve(record("r000002-bbb"))
    assert all(names == {"r000001-aa"} for names in rig.serving())


async def test_retire_is_everywhere_and_idempotent(rig: Rig) -> None:
    await rig.fleet.serve(record("r000001-aa"))
    await rig.fleet.retire("r000001-aa")
    await rig.fleet.retire("r000001-aa")
    await rig.fleet.retire("never-seen")
    assert all(names == set() for names in rig.serving())


async def test_a_restarted_replica_is_another_process_without_adapters_and_is_healed_alone(rig: Rig) -> None:
    a, b = record("r000001-aa"), record("r000002-bbb")
    await rig.fleet.serve(a)
    await rig.fleet.serve(b)
    url = rig.fleet.urls[1]
    before = await rig.fleet.observe(url)
    assert before.loaded == {each.name: rig.fleet.seen_as(each.path) for each in (a, b)}
    assert (before.url, before.version, before.problems) == (url, "0.32.0", ())
    rig.restart(1)
    after = await rig.fleet.observe(url)
    assert after.process != before.process
    assert after.loaded == {}
    assert await rig.fleet.heal(url, [a, b])
    assert await rig.fleet.heal(url, [a, b])
    assert (await rig.fleet.observe(url)).loaded == before.loaded
    assert await rig.fleet.heal(url, [])


async def test_what_is_listed_and_not_truly_served_is_disproved_and_healed(rig: Rig) -> None:
    adapter = record("r000001-aa")
    await rig.fleet.serve(adapter)
    for url in rig.fleet.urls:
        assert await rig.fleet.verify(url, adapter)
    rig.spoil(2, adapter.name)
    await rig.fleet.verify(rig.fleet.urls[1], adapter)
    with pytest.raises(AdapterError, match="does not serve"):
        await rig.fleet.verify(rig.fleet.urls[2], adapter)
    await rig.fleet.heal(rig.fleet.urls[2], [adapter])
    assert await rig.fleet.verify(rig.fleet.urls[2], adapter)


@pytest.mark.parametrize("kind", [AdapterError, UpstreamError])
async def test_healing_fails_as_serving_does_and_leaves_it_unloaded(rig: Rig, kind: type[Exception]) -> None:
    rig.fail("r000001-aa", kind)
    with pytest.raises(kind):
        await rig.fleet.heal(rig.fleet.urls[1], [record("r000001-aa")])
    assert rig.serving()[1] == set()


async def test_one_replica_unloads_what_is_not_wanted(rig: Rig) -> None:
    await rig.fleet.serve(record("r000001-aa"))
    url = rig.fleet.urls[0]
    await rig.fleet.unload(url, "r000001-aa", lambda: True)
    assert rig.serving()[0] == {"r000001-aa"}
    await rig.fleet.unload(url, "r000001-aa", lambda: False)
    await rig.fleet.unload(url, "r000001-aa", lambda: False)
    assert rig.serving() == [set(), {"r000001-aa"}, {"r000001-aa"}]


async def test_an_adapter_can_be_touched(rig: Rig) -> None:
    await rig.fleet.serve(record("r000001-aa"))
    for url in rig.fleet.urls:
        await rig.fleet.touch(url, "r000001-aa")


# What only servers can do.


async def test_a_server_that_cannot_hold_enough_adapters_is_refused_before_any_load(vllm_rig: VllmRig) -> None:
    vllm_rig.replicas[1].max_loras = 3
    with pytest.raises(ServerUnfit, match=r"holds 3 adapters .* start it with --max-loras 4") as caught:
        await vllm_rig.fleet.serve(record("r000001-aa"))
    assert vllm_rig.fleet.urls[1] in str(caught.value)
    assert all(names == set() for names in vllm_rig.serving())
    assert vllm_rig.replicas[1].loads == 0
    assert "--max-loras 4" in (await vllm_rig.fleet.observe(vllm_rig.fleet.urls[1])).problems[0]
    with pytest.raises(AdapterError, match="--max-loras 4"):
        await vllm_rig.fleet.heal(vllm_rig.fleet.urls[1], [record("r000001-aa")])


async def test_a_refusal_ends_no_serving(vllm_rig: VllmRig) -> None:
    await vllm_rig.fleet.serve(record("r000001-aa"))
    vllm_rig.replicas[1].max_loras, vllm_rig.replicas[1].process = 1, 7.0
    with pytest.raises(AdapterError, match="--max-loras 4"):
        await vllm_rig.fleet.serve(record("r000001-aa"))
    assert all(names == {"r000001-aa"} for names in vllm_rig.serving())


async def test_what_a_server_is_gets_read_once_per_process(vllm_rig: VllmRig) -> None:
    replica, url = vllm_rig.replicas[0], vllm_rig.fleet.urls[0]
    for _ in range(3):
        await vllm_rig.fleet.observe(url)
        await vllm_rig.fleet.serve(record("r000001-aa"))
    assert replica.reads == 1
    replica.restart()
    replica.version, replica.max_loras = "0.30.0", 2
    view = await vllm_rig.fleet.observe(url)
    assert (replica.reads, view.version) == (2, "0.30.0")
    assert [("0.31 or newer" in each, "--max-loras 4" in each) for each in view.problems] == [
        (True, False),
        (False, True),
    ]


async def test_two_who_change_a_server_take_turns(vllm_rig: VllmRig) -> None:
    a, b = record("r000001-aa"), record("r000002-bbb")
    url = vllm_rig.fleet.urls[0]
    await asyncio.gather(
        vllm_rig.fleet.serve(a),
        vllm_rig.fleet.heal(url, [a, b]),
        vllm_rig.fleet.unload(url, b.name, lambda: True),
        vllm_rig.fleet.serve(a),
        vllm_rig.fleet.serve(b),
    )
    assert all(names == {a.name, b.name} for names in vllm_rig.serving())
    assert [replica.loads for replica in vllm_rig.replicas] == [2, 2, 2]


async def test_delivery_in_place_is_refused_below_0_33_and_changes_nothing(vllm_rig: VllmRig) -> None:
    vllm_rig.replicas[0].version = "0.33.0"
    with pytest.raises(AdapterError, match=r"0\.33 or newer, or serve through `tao-daemon gateway`"):
        await vllm_rig.vllm.flip_in_place("assistant", record("r000001-aa"))
    assert all(names == set() for names in vllm_rig.serving())


async def test_delivery_in_place_verifies_everywhere_before_any_replica_flips(vllm_rig: VllmRig) -> None:
    a, b = record("r000001-aa"), record("r000002-bbb")
    for replica in vllm_rig.replicas:
        replica.version = "0.33.0"
    await vllm_rig.vllm.flip_in_place("assistant", a)
    report = await vllm_rig.vllm.flip_in_place("assistant", b)
    assert report.count("moves 100%") == 3
    assert all(replica.loaded["assistant"] == "/store/r000002-bbb" for replica in vllm_rig.replicas)
    vllm_rig.replicas[1].behaviour = "ignored"
    with pytest.raises(AdapterError, match="does not serve r000001-aa"):
        await vllm_rig.vllm.flip_in_place("assistant", a)
    assert all(replica.loaded["assistant"] == "/store/r000002-bbb" for replica in vllm_rig.replicas)
    await vllm_rig.vllm.flip_in_place("assistant", None)
    assert all("assistant" not in replica.loaded for replica in vllm_rig.replicas)
    with pytest.raises(AdapterError, match="base model's name"):
        await vllm_rig.vllm.flip_in_place("base", a)


async def test_a_flip_that_fails_half_way_says_where_it_stands(vllm_rig: VllmRig) -> None:
    a = record("r000001-aa")
    for replica in vllm_rig.replicas:
        replica.version = "0.33.0"
    await vllm_rig.fleet.serve(a)
    vllm_rig.replicas[1].behaviour = "refused"
    with pytest.raises(UpstreamError) as caught:
        await vllm_rig.vllm.flip_in_place("assistant", a)
    assert f"assistant is r000001-aa on {vllm_rig.fleet.urls[0]}, but" in str(caught.value)
    assert [("assistant" in replica.loaded) for replica in vllm_rig.replicas] == [True, False, False]


async def test_serving_again_verifies_and_does_not_load(vllm_rig: VllmRig) -> None:
    await vllm_rig.fleet.serve(record("r000001-aa"))
    await vllm_rig.fleet.serve(record("r000001-aa"))
    assert [replica.loads for replica in vllm_rig.replicas] == [1, 1, 1]


async def test_the_report_says_what_was_measured_where(vllm_rig: VllmRig) -> None:
    report = await vllm_rig.fleet.serve(record("r000001-aa"))
    assert report.count("http://127.0.0.1:") == 3
    assert "moves 100% ± 0% of its way over 13 tokens" in report


async def test_a_restarted_server_is_healed_and_the_others_are_not_disturbed(vllm_rig: VllmRig) -> None:
    await vllm_rig.fleet.serve(record("r000001-aa"))
    vllm_rig.replicas[1].loaded.clear()
    await vllm_rig.fleet.serve(record("r000001-aa"))
    assert all(names == {"r000001-aa"} for names in vllm_rig.serving())
    assert [replica.loads for replica in vllm_rig.replicas] == [1, 2, 1]


async def test_the_outage_of_one_server_does_not_end_serving_on_the_others(vllm_rig: VllmRig) -> None:
    await vllm_rig.fleet.serve(record("r000001-aa"))
    vllm_rig.replicas[1].loaded.clear()
    vllm_rig.replicas[1].behaviour = "refused"
    vllm_rig.replicas[2].behaviour = "deaf"
    with pytest.raises(UpstreamError):
        await vllm_rig.fleet.serve(record("r000001-aa"))
    assert vllm_rig.serving() == [{"r000001-aa"}, set(), {"r000001-aa"}]


async def test_where_it_is_no_longer_truly_served_it_is_unloaded(vllm_rig: VllmRig) -> None:
    await vllm_rig.fleet.serve(record("r000001-aa"))
    vllm_rig.replicas[2].behaviour = "ignored"
    with pytest.raises(AdapterError, match="serves the base model"):
        await vllm_rig.fleet.serve(record("r000001-aa"))
    assert vllm_rig.serving() == [{"r000001-aa"}, {"r000001-aa"}, set()]


async def test_the_same_name_from_another_path_is_loaded_again(vllm_rig: VllmRig) -> None:
    vllm_rig.replicas[0].loaded["r000001-aa"] = "/stale/r000001-aa"
    await vllm_rig.fleet.serve(record("r000001-aa"))
    assert [replica.loaded for replica in vllm_rig.replicas] == [{"r000001-aa": "/store/r000001-aa"}] * 3


async def test_another_adapter_under_the_name_is_refused(vllm_rig: VllmRig) -> None:
    wrong = record("r000002-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
    with pytest.raises(AdapterError, match="does not serve r000001-aa"):
        await vllm_rig.fleet.serve(AdapterRecord(**{**fields(record("r000001-aa")), "fingerprint": wrong.fingerprint}))
    assert all(names == set() for names in vllm_rig.serving())


def fields(adapter: AdapterRecord) -> dict[str, Any]:
    return {name: getattr(adapter, name) for name in AdapterRecord.__dataclass_fields__}


async def test_too_large_a_rank_is_refused_before_any_call(vllm_rig: VllmRig) -> None:
    with pytest.raises(AdapterError, match="rank 32"):
        await vllm_rig.fleet.serve(record("r000001-aa", rank=32))
    assert [replica.loads for replica in vllm_rig.replicas] == [0, 0, 0]


@pytest.mark.parametrize("load_seconds", [IMPATIENT])
async def test_a_server_that_hangs_fails_the_swap_within_its_deadline(vllm_rig: VllmRig) -> None:
    vllm_rig.replicas[1].behaviour = "hanging"
    async with asyncio.timeout(20):
        with pytest.raises(UpstreamError, match="within"):
            await vllm_rig.fleet.serve(record("r000001-aa"))
    assert vllm_rig.serving()[0] == vllm_rig.serving()[2] == set()


async def test_retire_tries_every_server_before_it_tells_of_one_that_is_down(vllm_rig: VllmRig) -> None:
    await vllm_rig.fleet.serve(record("r000001-aa"))
    broken: Callable[..., Any] = vllm_rig.replicas[0].app.router.resolve

    async def fail(request: web.Request) -> Any:
        raise web.HTTPServiceUnavailable

    vllm_rig.replicas[0].app.router.resolve = fail  # type: ignore[method-assign]
    with pytest.raises(UpstreamError, match="503"):
        await vllm_rig.fleet.retire("r000001-aa")
    vllm_rig.replicas[0].app.router.resolve = broken  # type: ignore[method-assign]
    assert vllm_rig.serving() == [{"r000001-aa"}, set(), set()]
