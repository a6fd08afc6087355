"""An OpenAI-compatible judge whose truth, biases and faults are known: what a real one does, on demand.

It reads the questions of `scoring.judging` as a model would, ranks by quality + place bias + noise, and misbehaves at
the rates that it is given. Reproducible for one seed and one sequence of requests.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Quality = Callable[[str, str], float]
"""(request as shown, answer as shown) → how good it truly is."""

_REQUEST = re.compile(r"<request (\w+)>\n(.*?)\n</request \1>", re.DOTALL)
_ANSWER = re.compile(r"<answer ([A-Z]) (\w+)>\n(.*?)\n</answer \1 \2>", re.DOTALL)


@dataclass
class JudgeServer:
    """Programmable while it runs."""

    quality: Quality
    place_bias: float = 0.0
    """Added to the first answer's quality, and less to each after it, down to nothing for the last."""
    noise: float = 0.0
    """Standard deviation of what is added to each quality."""
    fooled_by: frozenset[str] = frozenset()
    """Answers that it puts first, whatever they are worth."""
    malformed_rate: float = 0.0
    """Share of replies that are no ranking."""
    error_rate: float = 0.0
    """Share of requests answered by HTTP 500."""
    hang_rate: float = 0.0
    """Share of requests that get no answer."""
    seconds: float = 0.0
    """Until each answer."""
    refused_keys: frozenset[str] = frozenset()
    """Keys of a request's body that it does not take: HTTP 400."""
    prompt_tokens: int = 1000
    completion_tokens: int = 10
    seed: int = 0
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    answered: int = 0
    """Replies given, readable or not."""
    running: int = 0
    most: int = 0
    """Requests at once, at most."""

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[JudgeServer]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        server = TestServer(app)
        await server.start_server()
        self.url = str(server.make_url("")).rstrip("/")
        try:
            yield self
        finally:
            await server.close()

    async def chat(self, request: web.Request) -> web.Response:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._answered(request)
        finally:
            self.running -= 1

    async def _answered(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.refused_keys & body.keys():
            return web.json_response({"error": {"message": json.dumps(body)}}, status=400)
        if self._rng.random() < self.error_rate:
            return web.json_response({"error": {"message": json.dumps(body)}}, status=500)
        if self._rng.random() < self.hang_rate:
            await asyncio.sleep(3600)
        await asyncio.sleep(self.seconds)
        question = str(body["messages"][-1]["content"])
        self.answered += 1
        text = self._malformed() if self._rng.random() < self.malformed_rate else self.rank(question)
        return web.json_response(
            {
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            }
        )

    def rank(self, question: str) -> str:
        """What it replies when it behaves."""
        asked, answers = shown(question)
        worth = {
            letter: self._worth(asked, answer, place / max(1, len(answers) - 1))
            for place, (letter, answer) in enumerate(answers)
        }
        return json.dumps({"ranking": sorted(worth, key=lambda letter: -worth[letter])})

    def _worth(self, asked: str, answer: str, place: float) -> float:
        if answer.strip() in self.fooled_by:
            return float("inf")
        return self.quality(asked, answer) + self.place_bias * (1 - place) + self._rng.gauss(0.0, self.noise)

    def _malformed(self) -> str:
        return self._rng.choice(
            ["", "B is the best.", "[]", '{"ranking": []}', '{"ranking": ["A"]}', '{"ranking": ["A", "A"]}', '{"rank']
        )


def shown(question: str) -> tuple[str, list[tuple[str, str]]]:
    """The request and the answers with their letters, as they stand in a question."""
    asked = _REQUEST.search(question)
    assert asked is not None
    return asked[2], [(found[1], found[3]) for found in _ANSWER.finditer(question)]
