"""A gateway on a real port between servers that can fail: one or more that behave like vLLM, and a daemon."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tao_daemon.config import parse_config
from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.server import run_gateway


class Upstream:
    """One server with vLLM's shapes: chunked events, 404 for an unknown model, abort when the client leaves."""

    def __init__(self) -> None:
        self.models = {"base"}
        self.tokens = 3
        self.pause = 0.0
        """Before each token."""
        self.behaviour = "answer"
        """Or: break (before the head), cut (in the middle of the body), hang, or a status."""
        self.finish_reason = "stop"
        self.usage: dict[str, int] | None = None
        self.asked: Counter[str] = Counter()
        self.requests: list[tuple[str, Mapping[str, str], dict[str, Any]]] = []
        self.left = asyncio.Event()
        """A client went away in the middle of an answer."""
        self.app = web.Application(client_max_size=2**30)
        self.app.router.add_route("*", "/{path:.*}", self.handle)
        self.server: TestServer | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return str(self.server.make_url("")).rstrip("/")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.requests.append((request.path, request.headers, body))
        self.asked[model := body.get("model", "")] += 1
        if model not in self.models:
            message = f"The model `{model}` does not exist."
            return web.json_response({"error": {"message": message, "type": "NotFoundError", "code": 404}}, status=404)
        if self.behaviour.isdigit():
            return web.json_response({"error": {"message": "as asked"}}, status=int(self.behaviour))
        if self.behaviour == "break":
            assert request.transport is not None
            request.transport.abort()
        if self.behaviour == "hang":
            await asyncio.sleep(60)
        if body.get("stream"):
            return await self.stream(request, model)
        await asyncio.sleep(self.pause * self.tokens)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": f"I am {model}"},
            "finish_reason": self.finish_reason,
        }
        answer = {"id": "c", "object": "chat.completion", "model": model, "choices": [choice]}
        text = json.dumps(answer | ({"usage": self.usage} if self.usage else {}))
        if self.behaviour == "cut":
            return await self.cut(request, text.encode()[:20], len(text))
        return web.Response(text=text, content_type="application/json")

    async def stream(self, request: web.Request, model: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        try:
            await response.prepare(request)
            for number in range(self.tokens):
                if self.behaviour == "cut" and number == 1:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                await asyncio.sleep(self.pause)
                delta = {"content": f"{model}#{number} "}
                end = self.finish_reason if number == self.tokens - 1 else None
                chunk = {"id": "c", "model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
                await response.write(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.left.set()
            raise
        return response

    async def cut(self, request: web.Request, part: bytes, length: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(length)})
        await response.prepare(request)
        await response.write(part)
        assert request.transport is not None
        request.transport.close()
        return response


class Daemon:
    """Routes and reports as the control API takes them; every poll and report is remembered."""

    def __init__(self) -> None:
        self.routes = Routes(0, None)
        self.changed = asyncio.Event()
        self.polls: list[dict[str, str]] = []
        self.status = 200
        self.app = web.Application()
        self.app.router.add_get("/v1/routes", self.handle)
        self.app.router.add_put("/v1/gateways/{gateway}", self.take_report)
        self.app.router.add_delete("/v1/gateways/{gateway}", self.take_leave)
        self.left: list[str] = []
        self.reports: list[dict[str, Any]] = []
        self.token: str | None = None
        self.report_status = 204
        self.server: TestServer | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return str(self.server.make_url("")).rstrip("/")

    def publish(self, routes: Routes) -> None:
        self.routes = routes
        self.changed.set()
        self.changed = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.polls.append(dict(request.query))
        if self.status != 200:
            return web.Response(status=self.status)
        try:
            async with asyncio.timeout(float(request.query["wait"])):
                while self.routes.generation <= int(request.query["after"]):
                    await self.changed.wait()
        except TimeoutError:
            return web.Response(status=204)
        return web.json_response(self.routes.to_json())

    async def take_leave(self, request: web.Request) -> web.Response:
        self.left.append(request.match_info["gateway"])
        return web.Response(status=204)

    async def take_report(self, request: web.Request) -> web.Response:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        report = await request.json()
        assert report["gateway"] == request.match_info["gateway"]
        self.reports.append(report)
        return web.Response(status=self.report_status)

    async def report(self, condition: Callable[[dict[str, Any]], Any], seconds: float = 3.0) -> dict[str, Any]:
        """The first report, already there or to come, that fulfils the condition."""
        async with asyncio.timeout(seconds):
            while not (found := [report for report in self.reports if condition(report)]):
                await asyncio.sleep(0.005)
        return found[0]


@dataclass
class Gateway:
    """A running gateway and a client of it."""

    url: str
    session: aiohttp.ClientSession
    stop: asyncio.Event
    task: asyncio.Task[None]

    def chat(self, conversation: str | None = None, headers: dict[str, str] | None = None, **extra: Any) -> Any:
        """POST /v1/chat/completions: an async context manager."""
        body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}], **extra}
        sent = {**(headers or {}), **({"X-Conversation-Id": conversation} if conversation else {})}
        return self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=sent)

    async def version(self, conversation: str | None = None) -> str:
        async with self.chat(conversation) as response:
            assert response.status == 200, await response.text()
            return str(response.headers["X-Tao-Version"])

    async def metrics(self) -> dict[str, float]:
        async with self.session.get(f"{self.url}/metrics") as response:
            lines = [line.rsplit(" ", 1) for line in (await response.text()).splitlines() if line[:1] != "#"]
        return {name: float(value) for name, value in lines}


Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Any], Awaitable[Any]]]:
    """Starts an Upstream or a Daemon on a free port."""
    async with AsyncExitStack() as stack:

        async def start(part: Any) -> Any:
            part.server = TestServer(part.app)
            await part.server.start_server()
            stack.push_async_callback(part.server.close)
            return part

        yield start


@pytest.fixture
async def upstream(serve: Callable[[Any], Awaitable[Any]]) -> Upstream:
    started: Upstream = await serve(Upstream())
    return started


@pytest.fixture
async def daemon(serve: Callable[[Any], Awaitable[Any]]) -> Daemon:
    started: Daemon = await serve(Daemon())
    return started


@pytest.fixture
def routes_file(tmp_path: Path) -> Path:
    return tmp_path / "routes.json"


@pytest.fixture
async def start_gateway(upstream: Upstream, routes_file: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a gateway in this loop; keyword arguments go into [gateway], `serving` and `daemon` into theirs."""
    async with AsyncExitStack() as stack:

        async def start(
            serving: dict[str, Any] | None = None,
            daemon: dict[str, Any] | None = None,
            kafka: dict[str, Any] | None = None,
            buffer: dict[str, Any] | None = None,
            **gateway: Any,
        ) -> Gateway:
            nowhere = "http://127.0.0.1:1"
            config = parse_config(
                {
                    "daemon": {"data_dir": str(tmp_path), "shutdown_seconds": 5.0, **(daemon or {})},
                    "serving": {"replicas": [upstream.url], **(serving or {})},
                    "kafka": kafka or {},
                    "buffer": buffer or {},
                    "gateway": {
                        "port": 0,
                        "daemon_url": nowhere,
                        "routes_file": str(routes_file),
                        "report_seconds": 0.2,
                        **gateway,
                    },
                }
            )
            return await stack.enter_async_context(_running(config))

        yield start


@asynccontextmanager
async def _running(config: Any) -> AsyncIterator[Gateway]:
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_gateway(config, stop, port.set_result, clock=time.time))
    await asyncio.wait([task, port], return_when=asyncio.FIRST_COMPLETED, timeout=10)
    if task.done():
        task.result()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Gateway(f"http://127.0.0.1:{port.result()}", session, stop, task)
    stop.set()
    async with asyncio.timeout(15):
        await task
