"""A proxy before a model server that spoils the answers of one model: what a bad adapter looks like from outside."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from tao_daemon.embedded.processes import free_port


@dataclass
class Faults:
    """What happens to chat requests for `model`; the fractions are of requests. Set while it runs."""

    model: str = ""
    errors: float = 0.0
    gibberish: float = 0.0
    delay_seconds: float = 0.0

    @asynccontextmanager
    async def front(self, url: str) -> AsyncIterator[str]:
        """The URL to use instead of `url`."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", _Forward(self, url, session))
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            port = free_port()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                await runner.cleanup()


class _Forward:
    def __init__(self, faults: Faults, url: str, session: aiohttp.ClientSession) -> None:
        self._faults = faults
        self._url = url
        self._session = session
        self._dice = random.Random(0)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        spoiled = request.path == "/v1/chat/completions" and json.loads(raw).get("model") == self._faults.model
        if spoiled:
            await asyncio.sleep(self._faults.delay_seconds)
            if self._dice.random() < self._faults.errors:
                return web.json_response({"error": {"message": "planted"}}, status=500)
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        async with self._session.request(
            request.method, self._url + request.path_qs, data=raw, headers=headers
        ) as said:
            body = await said.read()
        if spoiled and said.status == 200 and self._dice.random() < self._faults.gibberish:
            body = _gibberish(body)
        return web.Response(status=said.status, body=body, content_type=said.content_type)


def _gibberish(body: bytes) -> bytes:
    try:
        answer = json.loads(body)
        answer["choices"][0]["message"]["content"] = "::::"
    except (ValueError, LookupError):
        return body
    return json.dumps(answer).encode()
