"""One gateway, one or two model servers: what passes, what does not, and what happens when servers fail."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NEEDLE = "needle-of-the-prompt"
Start = Callable[..., Awaitable[Any]]


def write_routes(path: Path, generation: int, adapter: str | None, previous: str | None = None) -> None:
    path.write_text(json.dumps({"generation": generation, "adapter": adapter, "previous": previous}))


async def events(response: aiohttp.ClientResponse) -> list[Any]:
    """The data of every event, [DONE] as it is."""
    lines = [line.removeprefix("data: ") for line in (await response.text()).split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_an_answer_comes_back_under_the_public_name(start_gateway: Start, upstream: Any) -> None:
    gateway = await start_gateway()
    async with gateway.chat(temperature=0.5, custom={"a": [1]}) as response:
        body = await response.json()
        assert (response.status, response.headers["X-Tao-Version"]) == (200, "base")
    assert body["model"] == "assistant"
    assert body["choices"][0]["message"]["content"] == "I am base"
    path, _, sent = upstream.requests[0]
    assert path == "/v1/chat/completions"
    assert sent == {
        "model": "base",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "custom": {"a": [1]},
    }


async def test_completions_go_to_their_own_route(start_gateway: Start, upstream: Any) -> None:
    gateway = await start_gateway()
    async with gateway.session.post(f"{gateway.url}/v1/completions", json={"prompt": "x"}) as response:
        assert response.status == 200
    assert upstream.requests[0][0] == "/v1/completions"
    assert upstream.requests[0][2] == {"prompt": "x", "model": "base"}


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(start_gateway: Start, upstream: Any) -> None:
    gateway = await start_gateway()
    url, body = f"{gateway.url}/v1/completions", {"prompt": "x"}
    async with asyncio.timeout(20), gateway.session.post(url, json=body, expect100=True) as response:
        assert response.status == 200
    assert upstream.requests[0][2] == {"prompt": "x", "model": "base"}


async def test_a_stream_passes_event_by_event_as_it_is_made(
    start_gateway: Start, upstream: Any, routes_file: Path
) -> None:
    upstream.models.add("a")
    upstream.pause = 0.2
    write_routes(routes_file, 1, "a")
    gateway = await start_gateway()
    loop, arrivals = asyncio.get_running_loop(), []
    async with gateway.chat(stream=True) as response:
        assert response.headers["X-Tao-Version"] == "a"
        assert response.headers["Content-Type"].startswith("text/event-stream")
        started, raw = loop.time(), b""
        async for chunk in response.content.iter_any():
            arrivals.append(loop.time() - started)
            raw += chunk
    found = [part.removeprefix("data: ") for part in raw.decode().split("\n\n") if part]
    assert found[-1] == "[DONE]"
    assert [json.loads(part)["model"] for part in found[:-1]] == ["assistant"] * 3
    assert [json.loads(part)["choices"][0]["delta"]["content"] for part in found[:-1]] == ["a#0 ", "a#1 ", "a#2 "]
    assert arrivals[0] < 0.4 < arrivals[-1], "the first event must not wait for the last"


async def test_the_model_servers_key_is_added_and_the_clients_is_not_forwarded(
    start_gateway: Start, upstream: Any, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("server-key\n")
    gateway = await start_gateway(serving={"api_key": f"file:{tmp_path / 'key'}"})
    headers = {"Authorization": "Bearer client-key", "Cookie": "c=1", "X-Request-Id": "id-1"}
    body = {"model": "assistant", "messages": []}
    async with gateway.session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200
    sent = upstream.requests[0][1]
    assert sent["Authorization"] == "Bearer server-key"
    assert sent["X-Request-Id"] == "id-1"
    assert "Cookie" not in sent
    assert not any("client-key" in value for value in sent.values())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/adapters"),
        ("POST", "/invocations"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/chat/completions/../load_lora_adapter"),
        ("POST", "//v1/load_lora_adapter"),
        ("GET", "/version"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
    ],
)
async def test_no_other_route_reaches_a_model_server(
    start_gateway: Start, upstream: Any, method: str, path: str
) -> None:
    gateway = await start_gateway()
    async with gateway.session.request(method, f"{gateway.url}{path}", json={"model": "assistant"}) as response:
        assert response.status in (404, 405)
        assert "message" in (await response.json())["error"]
    assert upstream.requests == []


async def test_only_the_public_model_is_listed_and_served(start_gateway: Start, upstream: Any) -> None:
    gateway = await start_gateway()
    async with gateway.session.get(f"{gateway.url}/v1/models") as response:
        assert [card["id"] for card in (await response.json())["data"]] == ["assistant"]
    async with gateway.chat(model="base") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"
    assert upstream.requests == []


async def test_a_body_that_is_no_request_or_too_large_is_refused(start_gateway: Start, upstream: Any) -> None:
    gateway = await start_gateway(max_body_bytes=1000)
    url = f"{gateway.url}/v1/chat/completions"
    async with gateway.session.post(url, data=b"{" + NEEDLE.encode()) as response:
        assert response.status == 400
        assert NEEDLE not in await response.text()
    async with gateway.chat(user="x" * 2000) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request_too_large"
    assert upstream.requests == []
    metrics = await gateway.metrics()
    assert metrics['tao_gateway_requests_total{kind="none",status="4xx"}'] == 2


async def test_a_missing_version_falls_back_to_the_previous_and_then_to_the_base(
    start_gateway: Start, upstream: Any, routes_file: Path
) -> None:
    write_routes(routes_file, 5, "new", "old")
    upstream.models |= {"new", "old"}
    gateway = await start_gateway()
    assert await gateway.version() == "new"
    upstream.models.discard("new")
    assert await gateway.version() == "old"
    upstream.models.discard("old")
    async with gateway.chat(stream=True) as response:
        assert response.headers["X-Tao-Version"] == "base"
        assert (await events(response))[-1] == "[DONE]"
    metrics = await gateway.metrics()
    assert metrics['tao_gateway_fallbacks_total{kind="adapter"}'] == 2
    assert metrics['tao_gateway_fallbacks_total{kind="previous"}'] == 1
    for kind in ("adapter", "previous", "base"):
        assert metrics[f'tao_gateway_requests_total{{kind="{kind}",status="2xx"}}'] == 1


async def test_another_replica_with_the_version_comes_before_another_version(
    start_gateway: Start, upstream: Any, serve: Any, routes_file: Path
) -> None:
    other = await serve(type(upstream)())
    upstream.models.add("new")
    write_routes(routes_file, 1, "new")
    gateway = await start_gateway(serving={"replicas": [upstream.url, other.url]})
    assert {await gateway.version() for _ in range(6)} == {"new"}
    assert other.asked["new"] > 0
    assert other.asked["base"] == 0


async def test_without_the_base_model_the_answer_is_502(start_gateway: Start, upstream: Any) -> None:
    upstream.models.clear()
    gateway = await start_gateway()
    async with gateway.chat() as response:
        assert response.status == 502
        assert "served-model-name" in (await response.json())["error"]["message"]


async def test_a_server_that_is_down_is_502_and_one_of_two_is_not_noticed(start_gateway: Start, upstream: Any) -> None:
    down = await start_gateway(serving={"replicas": ["http://127.0.0.1:1"]})
    async with down.chat() as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "upstream_unavailable"
    half = await start_gateway(serving={"replicas": ["http://127.0.0.1:1", upstream.url]})
    assert [await half.version() for _ in range(10)] == ["base"] * 10
    metrics = await half.metrics()
    assert metrics["tao_gateway_unreachable_replicas_total"] == 1, "a replica that is down rests"


async def test_a_connection_that_breaks_before_an_answer_is_tried_once_more(
    start_gateway: Start, upstream: Any, serve: Any
) -> None:
    upstream.behaviour = "break"
    gateway = await start_gateway()
    async with gateway.chat() as response:
        assert response.status == 502
    assert len(upstream.requests) == 2, "a request that kills servers must not visit all of them"
    other = await serve(type(upstream)())
    pair = await start_gateway(serving={"replicas": [upstream.url, other.url]})
    assert [await pair.version() for _ in range(4)] == ["base"] * 4


async def test_a_slow_server_is_504(start_gateway: Start, upstream: Any) -> None:
    upstream.behaviour = "hang"
    gateway = await start_gateway(request_timeout_seconds=0.4)
    for extra in ({}, {"stream": True}):
        async with gateway.chat(**extra) as response:
            assert response.status == 504
            assert (await response.json())["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("status", [400, 422, 500, 503])
async def test_other_answers_of_the_server_pass_with_their_status(
    start_gateway: Start, upstream: Any, status: int
) -> None:
    upstream.behaviour = str(status)
    gateway = await start_gateway()
    async with gateway.chat(stream=True) as response:
        assert response.status == status
        assert (await response.json())["error"]["message"] == "as asked"
        assert response.headers["X-Tao-Version"] == "base"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_gateway_does_not_look_like_a_refused_client(
    start_gateway: Start, upstream: Any, status: int
) -> None:
    upstream.behaviour = str(status)
    gateway = await start_gateway()
    async with gateway.chat() as response:
        assert response.status == 502


async def test_a_stream_that_is_cut_says_so_and_has_no_done(start_gateway: Start, upstream: Any) -> None:
    upstream.behaviour = "cut"
    gateway = await start_gateway()
    async with gateway.chat(stream=True) as response:
        assert response.status == 200
        found = await events(response)
    assert found[0]["choices"][0]["delta"]["content"] == "base#0 "
    assert found[-1]["error"]["code"] == "upstream_cut"
    assert "[DONE]" not in found
    assert (await gateway.metrics())['tao_gateway_requests_total{kind="base",status="cut"}'] == 1


async def test_a_plain_answer_that_is_cut_is_502(start_gateway: Start, upstream: Any) -> None:
    upstream.behaviour = "cut"
    gateway = await start_gateway()
    async with gateway.chat() as response:
        assert response.status == 502


async def test_a_stream_that_outlasts_the_deadline_is_cut(start_gateway: Start, upstream: Any) -> None:
    upstream.tokens, upstream.pause = 50, 0.1
    gateway = await start_gateway(request_timeout_seconds=0.5)
    async with gateway.chat(stream=True) as response:
        found = await events(response)
    assert 1 < len(found) < 10
    assert found[-1]["error"]["code"] == "upstream_cut"
    await asyncio.wait_for(upstream.left.wait(), 2)


async def test_an_idle_stream_is_cut(start_gateway: Start, upstream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tao_daemon.gateway.upstreams.IDLE_SECONDS", 0.3)
    upstream.pause = 0.7
    gateway = await start_gateway()
    async with gateway.chat(stream=True) as response:
        assert (await events(response))[-1]["error"]["code"] == "upstream_cut"
    async with gateway.chat() as response:
        assert response.status == 200, "a plain answer has no idle limit: nothing is expected before its end"


@pytest.mark.parametrize("extra", [{"stream": True}, {}])
async def test_a_client_that_leaves_ends_the_upstream_request(
    start_gateway: Start, upstream: Any, extra: dict[str, Any]
) -> None:
    upstream.tokens, upstream.pause = 600, 0.02
    gateway = await start_gateway()
    task = asyncio.create_task(_ask(gateway, extra))
    while not upstream.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20):
        while (await gateway.metrics())["tao_gateway_in_flight_requests"]:
            await asyncio.sleep(0.02)
        if extra:
            await upstream.left.wait()
    assert (await gateway.metrics())['tao_gateway_requests_total{kind="base",status="cancelled"}'] == 1


async def _ask(gateway: Any, extra: dict[str, Any]) -> None:
    async with gateway.chat(**extra) as response:
        await response.read()


async def test_nothing_of_a_request_or_an_answer_is_logged_on_any_path(
    start_gateway: Start, upstream: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway(max_body_bytes=5000, request_timeout_seconds=1.0)
    with caplog.at_level(logging.DEBUG):
        for behaviour in ("answer", "400", "500", "401", "break", "cut", "hang"):
            upstream.behaviour = behaviour
            for stream in (False, True):
                async with gateway.chat(user=NEEDLE, stream=stream) as response:
                    await response.read()
        for body in (NEEDLE.encode(), json.dumps({"model": NEEDLE}).encode(), NEEDLE.encode() * 1000):
            async with gateway.session.post(f"{gateway.url}/v1/chat/completions", data=body) as response:
                await response.read()
        async with gateway.session.post(f"{gateway.url}/v1/{NEEDLE}?{NEEDLE}") as response:
            assert NEEDLE not in await response.text()
        reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
        writer.write(f"{NEEDLE}\r\n{NEEDLE}\r\n\r\n".encode())
        await reader.read()
        writer.close()
    # The stub servers of this process log as well, under aiohttp's own names.
    ours = [record for record in caplog.records if record.name.startswith("tao_daemon")]
    assert ours
    assert not [record for record in ours if NEEDLE in record.getMessage() or NEEDLE in str(record.__dict__)]
    async with gateway.session.get(f"{gateway.url}/metrics") as response:
        assert NEEDLE not in await response.text()


async def test_health_and_draining(start_gateway: Start, upstream: Any) -> None:
    upstream.tokens, upstream.pause = 20, 0.05
    gateway = await start_gateway()
    for path in ("/livez", "/readyz"):
        async with gateway.session.get(gateway.url + path) as response:
            assert response.status == 200
    async with gateway.chat(stream=True) as response:
        await response.content.readany()
        gateway.stop.set()
        await asyncio.sleep(0.2)
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession() as fresh, fresh.get(f"{gateway.url}/livez"):
                pass
        rest = await response.text()
    assert rest.endswith("data: [DONE]\n\n"), "what is in flight at a stop ends whole"
    await asyncio.wait_for(gateway.task, 5)


async def test_a_stop_does_not_wait_for_ever(start_gateway: Start, upstream: Any) -> None:
    upstream.tokens, upstream.pause = 1000, 0.05
    gateway = await start_gateway(daemon={"shutdown_seconds": 0.5})
    async with gateway.chat(stream=True) as response:
        await response.content.readany()
        gateway.stop.set()
        await asyncio.wait_for(gateway.task, 4)
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_an_address_in_use_is_an_error_at_the_start(start_gateway: Start) -> None:
    gateway = await start_gateway()
    with pytest.raises(OSError, match="address"):
        await start_gateway(port=int(gateway.url.rsplit(":", 1)[1]))
