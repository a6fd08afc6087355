"""The control API over HTTP. Reading needs no token (the listener is loopback); changing needs the token.

GET  /livez /readyz /metrics /v1/status /v1/routes /v1/rounds /v1/rounds/{id} /v1/adapters
POST /v1/rounds /v1/rounds/cancel /v1/rollout/approve /v1/rollout/abort /v1/rollout/undo
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from tao_daemon.control import schemas
from tao_daemon.control.auth import is_authorized
from tao_daemon.domain.events import (
    Event,
    RolloutAborted,
    RolloutApproved,
    RoundCancelRequested,
    RoundRequested,
    UndoRequested,
)
from tao_daemon.domain.rollout import Routes

_MAX_WAIT_SECONDS = 60.0
_SUBMIT_SECONDS = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Make = Callable[[str, str], Event]

_CHANGES: dict[str, Make] = {
    "/v1/rounds": lambda actor, reason: RoundRequested(reason or f"requested by {actor}", actor),
    "/v1/rounds/cancel": lambda actor, reason: RoundCancelRequested(actor, reason or "no reason given"),
    "/v1/rollout/approve": lambda actor, reason: RolloutApproved(actor, reason or "no reason given"),
    "/v1/rollout/abort": lambda actor, reason: RolloutAborted(actor, reason or "no reason given"),
    "/v1/rollout/undo": lambda actor, reason: UndoRequested(actor, reason or "no reason given"),
}


class Daemon(Protocol):
    """What the API needs of the daemon."""

    async def status(self) -> dict[str, Any]: ...

    async def submit(self, event: Event) -> str:
        """Journal and act; answers with the note of the transition."""
        ...

    async def routes_newer_than(self, generation: int, wait_seconds: float) -> Routes | None: ...

    def not_ready(self) -> str | None:
        """Why the daemon is not ready, or None."""
        ...

    async def metrics(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        ...

    async def reports(self) -> list[dict[str, Any]]: ...

    async def adapters(self) -> list[dict[str, Any]]: ...


def build_app(daemon: Daemon, token: str) -> web.Application:
    """The application; `token` guards every route that changes something."""
    api = _Api(daemon, token)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=65_536)
    app.router.add_get("/livez", api.livez)
    app.router.add_get("/readyz", api.readyz)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/v1/status", api.status)
    app.router.add_get("/v1/routes", api.routes)
    app.router.add_get("/v1/rounds", api.rounds)
    app.router.add_get("/v1/rounds/{id:[0-9]+}", api.round)
    app.router.add_get("/v1/adapters", api.adapters)
    for path in _CHANGES:
        app.router.add_post(path, api.change)
    return app


class _Api:
    def __init__(self, daemon: Daemon, token: str) -> None:
        self._daemon = daemon
        self._token = token

    async def livez(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def readyz(self, request: web.Request) -> web.Response:
        reason = self._daemon.not_ready()
        return web.json_response({"ready": reason is None, "reason": reason}, status=503 if reason else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._daemon.metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(await self._daemon.status())

    async def routes(self, request: web.Request) -> web.Response:
        """Long poll: answers at once when there are newer routes than `after`, else 204 after `wait` seconds."""
        after = _number(request, "after", -1.0)
        wait = min(_number(request, "wait", 0.0), _MAX_WAIT_SECONDS)
        found = await self._daemon.routes_newer_than(int(after), wait)
        return web.json_response(schemas.routes(found)) if found else web.Response(status=204)

    async def rounds(self, request: web.Request) -> web.Response:
        return web.json_response({"rounds": await self._daemon.reports()})

    async def round(self, request: web.Request) -> web.Response:
        wanted = int(request.match_info["id"])
        found = [report for report in await self._daemon.reports() if report["round"] == wanted]
        if not found:
            raise web.HTTPNotFound(text=f"there is no round {wanted}; see GET /v1/rounds")
        return web.json_response(found[0])

    async def adapters(self, request: web.Request) -> web.Response:
        return web.json_response({"adapters": await self._daemon.adapters()})

    async def change(self, request: web.Request) -> web.Response:
        if not is_authorized(request.headers.get("Authorization"), self._token):
            body = schemas.error("unauthorized", "this route changes something", "send the token of data_dir")
            return web.json_response(body, status=401)
        actor, reason = await _who_and_why(request)
        event = _CHANGES[request.path](actor, reason)
        async with asyncio.timeout(_SUBMIT_SECONDS):
            note = await self._daemon.submit(event)
        return web.json_response({"note": note})


async def _who_and_why(request: web.Request) -> tuple[str, str]:
    try:
        body = await request.json() if request.can_read_body else {}
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object with `actor` and `reason`")
    return str(body.get("actor") or "api")[:200], str(body.get("reason") or "")[:2000]


def _number(request: web.Request, name: str, default: float) -> float:
    raw = request.query.get(name)
    try:
        value = float(raw) if raw else default
    except ValueError:
        value = float("nan")
    if not -1.0 <= value < 1e15:
        raise web.HTTPBadRequest(text=f"{name}={raw!r} is not a number from -1 on")
    return value


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as problem:
        if problem.status < 400:
            raise
        body = schemas.error(problem.reason.lower().replace(" ", "_"), problem.text or problem.reason)
        return web.json_response(body, status=problem.status)
    except TimeoutError:
        body = schemas.error("timeout", "the daemon did not act in time", "see its log; undo works with it stopped")
        return web.json_response(body, status=503)
