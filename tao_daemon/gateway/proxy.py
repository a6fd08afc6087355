"""The OpenAI routes: a request in, bound to one version, its answer passed on byte by byte.

Only the routes named here exist, so vLLM's administrative ones cannot be reached. Nothing of a request or an answer
is logged. A client that leaves ends its upstream request.

read → bound to a version → relayed → counted
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import (
    Kind,
    ModelRenamer,
    RequestRefused,
    error_body,
    model_list,
    parse_request,
    versions,
)
from tao_daemon.gateway.upstreams import Answer, Ask, Upstreams

VERSION_HEADER = "X-Tao-Version"
_PASSED_ON = ("X-Request-Id", "Traceparent", "Tracestate")
"""Request headers that the model server sees. Never the client's Authorization."""
_LAST_WORD_SECONDS = 1.0


@dataclass(slots=True)
class _Outcome:
    """How a request ended, for the meters."""

    kind: Kind | None = None
    status: str = "5xx"
    """What a bug would leave: aiohttp then answers 500."""


class Proxy:
    """Handlers of one gateway. `routes` gives the current ones; `draining` ends readiness."""

    def __init__(
        self,
        upstreams: Upstreams,
        routes: Callable[[], Routes],
        meters: Meters,
        *,
        base_model: str,
        public_model: str,
        request_seconds: float,
    ) -> None:
        self._upstreams = upstreams
        self._routes = routes
        self._meters = meters
        self._base_model = base_model
        self._public_model = public_model
        self._request_seconds = request_seconds
        self.draining = False

    def app(self, max_body_bytes: int) -> web.Application:
        """The application with every route there is."""
        app = web.Application(middlewares=[_errors_in_openai_shape], client_max_size=max_body_bytes)
        app.router.add_post("/v1/chat/completions", self.forward)
        app.router.add_post("/v1/completions", self.forward)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/livez", self.livez)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer with the version that the routes name at this moment, whatever they say later."""
        clock = asyncio.get_running_loop().time
        started, outcome = clock(), _Outcome()
        self._meters.in_flight.inc()
        try:
            return await self._answer(request, started + self._request_seconds, outcome)
        except (asyncio.CancelledError, ConnectionResetError):
            outcome.status = "cancelled"
            raise
        finally:
            self._meters.in_flight.dec()
            self._meters.ended(outcome.kind, outcome.status, clock() - started)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(model_list(self._public_model))

    async def livez(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(self, request: web.Request) -> web.Response:
        if self.draining:
            return web.Response(status=503, text="stopping\n")
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._meters.exposition(), content_type="text/plain", charset="utf-8")

    async def _answer(self, request: web.Request, deadline: float, outcome: _Outcome) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            body = parse_request(await _read(request, deadline), self._public_model)
            candidates = versions(self._routes(), self._base_model)
            outcome.kind = candidates[0].kind
            ask = Ask(request.path, body, _headers(request), deadline)
            async with self._upstreams.answer(ask, candidates) as answer:
                outcome.kind = answer.version.kind
                return await self._relay(request, answer, deadline, outcome)
        except RequestRefused as error:
            response = _error(error.status, str(error), "invalid_request_error", error.code)
        except UpstreamTimeout as error:
            response = _error(504, str(error), "server_error", "upstream_timeout")
        except UpstreamError as error:
            response = _error(502, str(error), "server_error", "upstream_unavailable")
        outcome.status = f"{response.status // 100}xx"
        return response

    async def _relay(
        self, request: web.Request, answer: Answer, deadline: float, outcome: _Outcome
    ) -> web.StreamResponse:
        upstream = answer.response
        if upstream.status in (401, 403):
            raise UpstreamError("The model server refuses the gateway's key; check serving.api_key.")
        headers = {VERSION_HEADER: answer.version.label}
        if content_type := upstream.headers.get("Content-Type"):
            headers["Content-Type"] = content_type
        renamer = ModelRenamer(answer.version, self._public_model)
        if upstream.content_type != "text/event-stream":
            body = renamer.whole(await _next(upstream.read))
            outcome.status = f"{upstream.status // 100}xx"
            return web.Response(status=upstream.status, body=body, headers=headers)
        headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(status=upstream.status, headers=headers)
        await response.prepare(request)
        try:
            async with asyncio.timeout_at(deadline):
                while chunk := await _next(upstream.content.readany):
                    if lines := renamer.feed(chunk):
                        await response.write(lines)
                if rest := renamer.flush():
                    await response.write(rest)
                await response.write_eof()
            outcome.status = f"{upstream.status // 100}xx"
        except (UpstreamError, TimeoutError):
            outcome.status = "cut"
            await _say_that_it_ends(request, response)
        return response


async def _read(request: web.Request, deadline: float) -> bytes:
    try:
        async with asyncio.timeout_at(deadline):
            return await request.read()
    except TimeoutError:
        raise RequestRefused(408, "request_timeout", "The request body did not arrive in time.") from None
    except web.HTTPRequestEntityTooLarge:
        raise RequestRefused(413, "request_too_large", "The request body is larger than this gateway takes.") from None


async def _next(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """Read from upstream, its failures told apart from those of the client's connection."""
    try:
        return await read()
    except TimeoutError:
        raise UpstreamTimeout("The model server stopped answering.") from None
    except (aiohttp.ClientError, OSError):
        raise UpstreamError("The model server broke off its answer.") from None


async def _say_that_it_ends(request: web.Request, response: web.StreamResponse) -> None:
    """The status is long sent: an error event, and no [DONE], tell the client that the answer is cut."""
    event = web.json_response(error_body("The answer was cut off.", "server_error", "upstream_cut")).body
    assert isinstance(event, bytes)
    try:
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            await response.write(b"data: " + event + b"\n\n")
            await response.write_eof()
    except (TimeoutError, OSError):
        # A client that does not read would hold the connection for good.
        if request.transport is not None:
            request.transport.abort()


def _headers(request: web.Request) -> dict[str, str]:
    """What goes upstream; the encoding is plain so that the model's name can be replaced."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    return headers | {name: request.headers[name] for name in _PASSED_ON if name in request.headers}


def _error(status: int, message: str, kind: str, code: str) -> web.Response:
    return web.json_response(error_body(message, kind, code), status=status)


@web.middleware
async def _errors_in_openai_shape(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """404, 405 and 413 as clients of this API expect them. The path is not repeated: it is the client's text."""
    try:
        return await handler(request)
    except web.HTTPClientError as error:
        return _error(error.status, error.reason, "invalid_request_error", error.reason.lower().replace(" ", "_"))
