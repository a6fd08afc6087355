"""An upstream that answers like vLLM, or as badly as a test wants, and a sampler that talks to it over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import Sampling
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import Signal
from tao_daemon.sampling.vllm_sampler import VllmSampler

Behaviour = Callable[[Mapping[str, Any], dict[str, Any]], Any]
"""Takes the request body and the good answer; returns a body, a status, or an awaitable of either."""


@dataclass
class Upstream:
    """Programmable while it runs. `behave` is asked before every answer."""

    behave: Behaviour = lambda body, answer: answer
    waiting: list[int] = field(default_factory=lambda: [0])
    """Queue lengths to report, one per look; the last one stays."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    conversations: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of /tokenize."""
    tokenizing: int = 200
    """Status of /tokenize."""
    running: int = 0
    most: int = 0
    looks: int = 0
    url: str = ""

    async def chat(self, request: web.Request) -> web.Response:
        return await self._answer(await request.json(), _chat_answer)

    async def complete(self, request: web.Request) -> web.Response:
        return await self._answer(await request.json(), _completions_answer)

    async def tokenize(self, request: web.Request) -> web.Response:
        """The template of `_chat_answer`'s prompts: the messages before the answer, the answer, its end, a new line."""
        body = await request.json()
        self.conversations.append(body)
        if self.tokenizing != 200:
            return web.Response(status=self.tokenizing)
        *before, last = body["messages"]
        return web.json_response({"tokens": [*_tokens(str(before)), *_tokens(last["content"]), END, *_tokens("\n")]})

    async def metrics(self, request: web.Request) -> web.Response:
        self.looks += 1
        length = self.waiting.pop(0) if len(self.waiting) > 1 else self.waiting[0]
        return web.Response(text=f'vllm:num_requests_waiting{{engine="0",model_name="base"}} {length}.0\n')

    async def _answer(self, body: dict[str, Any], good: Callable[[Mapping[str, Any]], dict[str, Any]]) -> web.Response:
        self.bodies.append(body)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            result = self.behave(body, good(body))
            if asyncio.iscoroutine(result):
                result = await result
        finally:
            self.running -= 1
        return web.Response(status=result) if isinstance(result, int) else web.json_response(result)


END = 2


def _choice(body: Mapping[str, Any], index: int) -> dict[str, Any]:
    return {"index": index, "finish_reason": "stop", "token_ids": [100 + index, END]}


def _chat_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    choices = [
        _choice(body, n)
        | {"message": {"content": f"answer {n}"}, "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -0.1}]}}
        for n in range(body["n"])
    ]
    return {"choices": choices, "prompt_token_ids": _tokens(str(body["messages"]))}


def _completions_answer(body: Mapping[str, Any]) -> dict[str, Any]:
    choices = [
        _choice(body, n)
        | {
            "text": f"answer {n}",
            "logprobs": {"token_logprobs": [-0.5, -0.1]},
            "prompt_token_ids": _tokens(str(body["prompt"])),
        }
        for n in range(body["n"])
    ]
    return {"choices": choices}


def _tokens(text: str) -> list[int]:
    return list(text.encode())


async def _started() -> tuple[Upstream, TestServer]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.chat)
    app.router.add_post("/v1/completions", upstream.complete)
    app.router.add_post("/tokenize", upstream.tokenize)
    app.router.add_get("/metrics", upstream.metrics)
    server = TestServer(app)
    await server.start_server()
    upstream.url = str(server.make_url("")).rstrip("/")
    return upstream, server


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream, server = await _started()
    yield upstream
    await server.close()


@pytest.fixture
async def other() -> AsyncIterator[tuple[Upstream, TestServer]]:
    upstream, server = await _started()
    yield upstream, server
    await server.close()


@pytest.fixture
def other_upstream(other: tuple[Upstream, TestServer]) -> Upstream:
    return other[0]


@pytest.fixture
def other_server(other: tuple[Upstream, TestServer]) -> TestServer:
    return other[1]


@pytest.fixture
def signals() -> list[Signal]:
    return []


@pytest.fixture
async def make_sampler(signals: list[Signal]) -> AsyncIterator[Callable[..., VllmSampler]]:
    """Build a sampler for upstreams; keywords go into [sampling]."""
    async with aiohttp.ClientSession() as session:

        def make(*urls: str, **config: Any) -> VllmSampler:
            clients = [
                VllmClient(url, api_key=None, session=session, retry=RetryPolicy(attempts=1), emit=signals.append)
                for url in urls
            ]
            settings = Sampling(**{"completions": 3, "concurrent_prompts": 4, "max_tokens": 16, **config})
            retry = RetryPolicy(attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.02)
            return VllmSampler(
                clients,
                settings,
                base_model="base",
                answer_temperature=0.0,
                min_spread=0.05,
                retry=retry,
                emit=signals.append,
            )

        yield make


@pytest.fixture
def prompts() -> Callable[..., list[Prompt]]:
    def make(count: int, **request: Any) -> list[Prompt]:
        return [
            Prompt(
                f"p{n}",
                {"messages": [{"role": "user", "content": f"question {n}"}], **request},
                Source("t", 0, n),
                received_at=0.0,
            )
            for n in range(count)
        ]

    return make
