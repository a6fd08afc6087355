"""The OpenAI routes: a request in, bound to one version, its answer passed on byte by byte.

Only the routes named here exist, so vLLM's administrative ones cannot be reached. Nothing of a request or an answer
is logged. A client that leaves ends its upstream request.

read → bound to a version → captured → relayed → counted
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.answers import AnswerReader
from tao_daemon.gateway.capture import Capture
from tao_daemon.gateway.evidence import Bound, Evidence
from tao_daemon.gateway.http_client import Broken, Idle
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import Kind, RequestRefused, error_body, parse_request, plan
from tao_daemon.gateway.split import identity, place, within
from tao_daemon.gateway.upstreams import Answer, Ask, Upstreams

VERSION_HEADER = "X-Tao-Version"
_PASSED_ON = ("X-Request-Id", "Traceparent", "Tracestate")
"""Request headers that the model server sees. Never the client's Authorization."""
_LAST_WORD_SECONDS = 1.0
_CUT = "cut"
_CANCELLED = "cancelled"


@dataclass(slots=True)
class _Exchange:
    """One request and what became of it."""

    started: float
    """In the loop's time."""
    ask: Ask | None = None
    bound: Bound | None = None
    slow_seconds: float | None = None
    bound_kind: Kind | None = None
    """Of the version it was bound to."""
    kind: Kind | None = None
    """Of the version that answered, as soon as one does."""
    stream: web.StreamResponse | None = None
    """The answer, once its head is on its way to the client."""
    writing: bool = False
    """Waiting for the client to take what was written."""
    status: str = "5xx"
    """How it ended; at first what a bug would leave: aiohttp then answers 500."""
    truncated: bool = False


class Proxy:
    """Forwards requests. `routes` gives the current ones; `capture` is None where prompts are not captured."""

    def __init__(
        self,
        upstreams: Upstreams,
        routes: Callable[[], Routes],
        meters: Meters,
        evidence: Evidence,
        capture: Capture | None,
        *,
        base_model: str,
        public_model: str,
        conversation_header: str,
        request_seconds: float,
    ) -> None:
        self._upstreams = upstreams
        self._routes = routes
        self._meters = meters
        self._evidence = evidence
        self._capture = capture
        self._base_model = base_model
        self._public_model = public_model
        self._conversation_header = conversation_header
        self._request_seconds = request_seconds
        self._plan = plan(routes(), base_model)
        self._clock = asyncio.get_running_loop().time

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with the version that the routes name at this moment, whatever they say later."""
        exchange = _Exchange(self._clock())
        self._meters.in_flight += 1
        try:
            return await self._in_time(request, exchange)
        except asyncio.CancelledError:
            exchange.status = _CANCELLED
            raise
        except ConnectionResetError:
            # The client left; whatever is returned goes nowhere, and an exception would be logged as a bug.
            exchange.status = _CANCELLED
            return exchange.stream or web.Response(status=499)
        finally:
            self._meters.in_flight -= 1
            self._ended(exchange)

    async def _in_time(self, request: web.BaseRequest, exchange: _Exchange) -> web.StreamResponse:
        """One deadline over everything; what it means depends on how far the request has come."""
        try:
            async with asyncio.timeout_at(exchange.started + self._request_seconds):
                return await self._answer(request, exchange)
        except TimeoutError:
            if exchange.stream is not None:
                exchange.status = _CANCELLED if exchange.writing else _CUT
                await _say_that_it_ends(request, exchange.stream)
                return exchange.stream
            if exchange.ask is not None:
                return _error(504, "The model server did not answer in time.", "server_error", "upstream_timeout")
            exchange.status = "4xx"
            text = "The request body did not arrive in time."
            return _error(408, text, "invalid_request_error", "request_timeout")

    async def _answer(self, request: web.BaseRequest, exchange: _Exchange) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            ask = await self._bind(request, exchange)
            answer = await self._upstreams.answer(ask)
            exchange.kind = answer.version.kind
            try:
                return await self._relay(request, answer, exchange)
            finally:
                answer.close()
        except RequestRefused as error:
            response = _error(error.status, str(error), "invalid_request_error", error.code)
        except UpstreamTimeout as error:
            response = _error(504, str(error), "server_error", "upstream_timeout")
        except UpstreamError as error:
            response = _error(502, str(error), "server_error", "upstream_unavailable")
        exchange.status = _status_class(response.status)
        return response

    async def _bind(self, request: web.BaseRequest, exchange: _Exchange) -> Ask:
        """Read the request and decide, once and for all, which version answers it. Raises RequestRefused."""
        raw = await _read(request)
        body = parse_request(raw, self._public_model)
        headers, routes, current = request.headers, self._routes(), self._plan
        if current.routes is not routes:
            current = self._plan = plan(routes, self._base_model)
        versions = current.incumbent
        if routes.salt:
            where = place(routes.salt, identity(headers.get(self._conversation_header), body))
            if routes.candidate is not None and within(routes.fraction, where):
                versions = current.candidate
            baking = routes.candidate is None and versions[0].kind is Kind.ADAPTER
            to_candidate = baking or versions[0].kind is Kind.CANDIDATE
            exchange.bound = self._evidence.bind(routes, where, to_candidate=to_candidate)
            exchange.slow_seconds = routes.slow_seconds
        exchange.bound_kind = versions[0].kind
        self._meters.moved(None, versions[0].model)
        ask = exchange.ask = Ask(
            request.path,
            raw,
            body,
            _passed_on(headers),
            versions,
            current.unready,
            versions[0].model,
            until=exchange.started + self._request_seconds,
        )
        if self._capture is not None:
            self._capture.offer(raw, body, headers)
        return ask

    async def _relay(self, request: web.BaseRequest, answer: Answer, exchange: _Exchange) -> web.StreamResponse:
        upstream = answer.response
        if upstream.status in (401, 403):
            raise UpstreamError("The model server refuses the gateway's key; check serving.api_key.")
        headers = {VERSION_HEADER: answer.version.label}
        if content_type := upstream.content_type:
            headers["Content-Type"] = content_type
        reader = AnswerReader(answer.version.model, self._public_model)
        if content_type.startswith("text/event-stream"):
            return await self._stream(request, answer, exchange, headers, reader)
        body = reader.whole(await _next(upstream.read))
        self._found(exchange, answer, reader)
        exchange.status = _status_class(upstream.status)
        return web.Response(status=upstream.status, body=body, headers=headers)

    async def _stream(
        self,
        request: web.BaseRequest,
        answer: Answer,
        exchange: _Exchange,
        headers: dict[str, str],
        reader: AnswerReader,
    ) -> web.StreamResponse:
        upstream = answer.response
        headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        response = exchange.stream = web.StreamResponse(status=upstream.status, headers=headers)
        await response.prepare(request)
        waiting_for_first = True
        try:
            while chunk := await _next(upstream.read_any):
                if lines := reader.feed(chunk):
                    if waiting_for_first:
                        waiting_for_first = False
                        self._meters.first_bytes[answer.version.kind].observe(self._clock() - exchange.started)
                    exchange.writing = True
                    await response.write(lines)
                    exchange.writing = False
            exchange.writing = True
            await response.write_eof(reader.flush())
            exchange.status = _CUT if reader.failed else _status_class(upstream.status)
        except UpstreamError:
            exchange.status = _CUT
            await _say_that_it_ends(request, response)
        finally:
            self._found(exchange, answer, reader)
        return response

    def _found(self, exchange: _Exchange, answer: Answer, reader: AnswerReader) -> None:
        exchange.truncated = reader.truncated
        self._meters.answered(answer.version.kind, reader.tokens, reader.truncated)

    def _ended(self, exchange: _Exchange) -> None:
        """Count it, for metrics and for its arm."""
        seconds = self._clock() - exchange.started
        self._meters.ended(exchange.kind or exchange.bound_kind, exchange.status, seconds)
        if exchange.ask is None:
            return
        self._meters.moved(exchange.ask.model, None)
        if exchange.bound is not None:
            fell_back = exchange.kind is not None and exchange.kind is not exchange.bound_kind
            limit = exchange.slow_seconds
            exchange.bound.ended(
                error=fell_back or exchange.status in ("5xx", _CUT),
                slow=limit is not None and seconds > limit and exchange.status == "2xx",
                truncated=exchange.truncated,
            )


async def _read(request: web.BaseRequest) -> bytes:
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise RequestRefused(413, "request_too_large", "The request body is larger than this gateway takes.") from None


async def _next(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """Read from upstream, its failures told apart from those of the client's connection."""
    try:
        return await read()
    except Idle:
        raise UpstreamTimeout("The model server stopped answering.") from None
    except Broken:
        raise UpstreamError("The model server broke off its answer.") from None


async def _say_that_it_ends(request: web.BaseRequest, response: web.StreamResponse) -> None:
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


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _PASSED_ON if name in headers}


def _status_class(status: int) -> str:
    return f"{status // 100}xx"


def _error(status: int, message: str, kind: str, code: str) -> web.Response:
    return web.json_response(error_body(message, kind, code), status=status)
