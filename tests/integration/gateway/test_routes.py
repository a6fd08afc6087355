"""Where routes come from: the daemon while it is up, the file when it is not; and flips under load."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tao_daemon.domain.rollout import Routes

Start = Callable[..., Awaitable[Any]]
STREAMS = 200
FLIPS = 20
TOKENS = 8


def write_routes(path: Path, generation: int, adapter: str | None, previous: str | None = None) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"generation": generation, "adapter": adapter, "previous": previous}))
    draft.replace(path)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def serves(gateway: Any, version: str) -> None:
    async def now() -> bool:
        return bool(await gateway.version() == version)

    await until(now)


async def test_with_nothing_known_the_base_model_serves(start_gateway: Start) -> None:
    gateway = await start_gateway()
    assert await gateway.version() == "base"
    metrics = await gateway.metrics()
    assert metrics["tao_gateway_routes_generation"] == 0
    assert metrics["tao_gateway_daemon_connected"] == 0


async def test_the_daemons_routes_are_there_before_the_first_request_and_are_cached(
    start_gateway: Start, upstream: Any, daemon: Any, routes_file: Path
) -> None:
    upstream.models.add("a")
    daemon.routes = Routes(3, "a")
    gateway = await start_gateway(daemon_url=daemon.url)
    assert await gateway.version() == "a"
    assert Routes.from_json(json.loads(routes_file.read_text())) == Routes(3, "a")
    assert daemon.polls[0]["after"] == "0"
    assert daemon.polls[0]["gateway"]
    metrics = await gateway.metrics()
    assert metrics["tao_gateway_routes_generation"] == 3
    assert metrics["tao_gateway_daemon_connected"] == 1
    assert metrics['tao_gateway_routes_info{adapter="a",candidate="",previous=""}'] == 1


async def test_with_the_daemon_down_the_files_routes_serve(
    start_gateway: Start, upstream: Any, routes_file: Path
) -> None:
    upstream.models.add("a")
    write_routes(routes_file, 3, "a")
    gateway = await start_gateway()
    assert await gateway.version() == "a"


async def test_a_flip_arrives_at_once(start_gateway: Start, upstream: Any, daemon: Any) -> None:
    upstream.models |= {"a", "b"}
    daemon.routes = Routes(1, "a")
    gateway = await start_gateway(daemon_url=daemon.url)
    await asyncio.sleep(0.2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    daemon.publish(Routes(2, "b", "a"))
    await serves(gateway, "b")
    assert loop.time() - started < 0.5


async def test_the_daemon_going_and_coming_back_is_not_noticed_by_clients(
    start_gateway: Start, upstream: Any, daemon: Any, serve: Any
) -> None:
    upstream.models |= {"a", "b"}
    daemon.routes = Routes(1, "a")
    gateway, port = await start_gateway(daemon_url=daemon.url), daemon.server.port
    await daemon.server.close()

    async def lost() -> bool:
        return bool((await gateway.metrics())["tao_gateway_daemon_connected"] == 0)

    await until(lost)
    assert await gateway.version() == "a"
    again = type(daemon)()
    again.routes = Routes(2, "b", "a")
    runner = aiohttp.web.AppRunner(again.app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        await serves(gateway, "b")
        assert not await lost()
    finally:
        again.publish(Routes(3, "b"))
        await runner.cleanup()


async def test_an_undo_without_a_daemon_takes_under_a_second(
    start_gateway: Start, upstream: Any, routes_file: Path
) -> None:
    upstream.models |= {"bad", "good"}
    write_routes(routes_file, 7, "bad", "good")
    gateway = await start_gateway()
    assert await gateway.version() == "bad"
    loop = asyncio.get_running_loop()
    started = loop.time()
    write_routes(routes_file, 8, "good")
    await serves(gateway, "good")
    assert loop.time() - started < 1.0


async def test_an_undo_arrives_through_the_file_though_the_daemon_hangs(
    start_gateway: Start, upstream: Any, daemon: Any, routes_file: Path
) -> None:
    upstream.models |= {"bad", "good"}
    daemon.routes = Routes(7, "bad", "good")
    gateway = await start_gateway(daemon_url=daemon.url)
    write_routes(routes_file, 8, "good")
    await serves(gateway, "good")


async def test_the_newer_generation_wins_wherever_it_comes_from(
    start_gateway: Start, upstream: Any, daemon: Any, routes_file: Path
) -> None:
    upstream.models |= {"a", "b"}
    write_routes(routes_file, 9, "b")
    daemon.routes = Routes(4, "a")
    gateway = await start_gateway(daemon_url=daemon.url)
    await asyncio.sleep(0.7)
    assert await gateway.version() == "b"
    assert json.loads(routes_file.read_text())["generation"] == 9
    write_routes(routes_file, 2, "a")
    await asyncio.sleep(0.7)
    assert await gateway.version() == "b"


async def test_an_undo_in_the_file_survives_older_routes_from_the_daemon(
    start_gateway: Start, upstream: Any, daemon: Any, routes_file: Path
) -> None:
    upstream.models |= {"bad", "good"}
    daemon.routes = Routes(1, "bad", "good")
    gateway = await start_gateway(daemon_url=daemon.url)
    write_routes(routes_file, 9, "good")
    daemon.publish(Routes(2, "bad", "good"))
    await serves(gateway, "good")
    assert json.loads(routes_file.read_text())["generation"] == 9


async def test_a_broken_file_or_daemon_changes_nothing_and_is_not_polled_in_a_loop(
    start_gateway: Start, upstream: Any, daemon: Any, routes_file: Path
) -> None:
    upstream.models.add("a")
    write_routes(routes_file, 1, "a")
    gateway = await start_gateway(daemon_url=daemon.url)
    await asyncio.sleep(0.1)
    routes_file.write_text("{")
    daemon.status = 500
    daemon.publish(Routes(0, None))
    before = len(daemon.polls)
    await asyncio.sleep(1.2)
    assert await gateway.version() == "a"
    assert len(daemon.polls) - before <= 4


async def test_a_daemon_that_does_not_hold_the_poll_open_is_not_flooded(
    start_gateway: Start, upstream: Any, daemon: Any
) -> None:
    daemon.status = 204
    gateway = await start_gateway(daemon_url=daemon.url)
    await asyncio.sleep(1.2)
    assert len(daemon.polls) <= 5
    assert (await gateway.metrics())["tao_gateway_daemon_connected"] == 1


async def test_a_file_that_cannot_be_written_is_no_reason_to_stop(
    start_gateway: Start, upstream: Any, daemon: Any, tmp_path: Path
) -> None:
    upstream.models |= {"a", "b"}
    daemon.routes = Routes(1, "a")
    blocked = tmp_path / "file"
    blocked.write_text("")
    gateway = await start_gateway(daemon_url=daemon.url, routes_file=str(blocked / "routes.json"))
    assert await gateway.version() == "a"
    daemon.publish(Routes(2, "b", "a"))
    await serves(gateway, "b")


async def test_flips_under_load_lose_nothing_and_never_mix_versions(
    start_gateway: Start, upstream: Any, daemon: Any, serve: Any
) -> None:
    other = await serve(type(upstream)())
    for server in (upstream, other):
        server.models |= {"a", "b", "c"}
        server.tokens, server.pause = TOKENS, 0.02
    daemon.routes = Routes(1, "a", "b")
    gateway = await start_gateway(daemon_url=daemon.url, serving={"replicas": [upstream.url, other.url]})
    stop, seen = asyncio.Event(), Counter[str]()

    async def client(number: int) -> None:
        while not stop.is_set():
            async with gateway.chat(str(number), stream=True) as response:
                assert response.status == 200
                version, text = response.headers["X-Tao-Version"], await response.text()
            parts = [json.loads(part[6:]) for part in text.split("\n\n") if part and "[DONE]" not in part]
            assert text.endswith("data: [DONE]\n\n")
            assert {part["model"] for part in parts} == {"assistant"}
            contents = [part["choices"][0]["delta"]["content"] for part in parts]
            assert contents == [f"{version}#{index} " for index in range(TOKENS)]
            seen[version] += 1

    clients = [asyncio.create_task(client(number)) for number in range(STREAMS)]
    for flip in range(FLIPS):
        await asyncio.sleep(0.2)
        adapter, previous = ("b", "a") if flip % 2 == 0 else ("a", "b")
        daemon.publish(Routes(2 + flip, adapter, previous, "c", flip % 4 / 4, "salt"))
        # As a rollout does: the adapter before the previous one is unloaded while requests still run.
        if flip == FLIPS // 2:
            for server in (upstream, other):
                server.models.discard("b")
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.gather(*clients)
    assert min(seen["a"], seen["b"], seen["c"]) >= 50, seen
    metrics = await gateway.metrics()
    ended = {name: count for name, count in metrics.items() if name.startswith("tao_gateway_requests_total")}
    assert all('status="2xx"' in name or not count for name, count in ended.items())
    assert sum(ended.values()) == sum(seen.values())
    assert metrics["tao_gateway_in_flight_requests"] == 0
    assert metrics["tao_gateway_routes_generation"] == 1 + FLIPS


async def test_nothing_leaks(start_gateway: Start, upstream: Any) -> None:
    gateway = await start_gateway()
    await asyncio.gather(*(gateway.version() for _ in range(50)))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await asyncio.gather(*(gateway.version() for _ in range(50)))
    assert len(os.listdir("/proc/self/fd")) <= before + 5
