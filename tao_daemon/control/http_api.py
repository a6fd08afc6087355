"""The control API over HTTP. Reading needs no token (the listener is loopback); changing needs the token.

GET  /livez /readyz /metrics /v1/status /v1/routes /v1/rounds /v1/rounds/{id} /v1/rollout /v1/rollouts /v1/adapters
     /v1/gateways /v1/replicas
POST /v1/rounds /v1/rounds/cancel /v1/rollout/approve|promote|abort|pause|resume|undo
PUT  /v1/gateways/{id}   DELETE /v1/gateways/{id}
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from tao_daemon.control import schemas
from tao_daemon.control.auth import is_authorized
from tao_daemon.daemon.traffic_board import report_from_json
from tao_daemon.domain.events import (
    Event,
    RolloutAborted,
    RolloutApproved,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RoundCancelRequested,
    RoundRequested,
    UndoRequested,
)
from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import GatewayReport

_MAX_WAIT_SECONDS = 60.0
_SUBMIT_SECONDS = 10.0
_NAME_CHARACTERS = 200
_REASON_CHARACTERS = 2000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Make = Callable[["_Asked"], Event]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The body of a request that changes something."""

    actor: str
    reason: str
    full: bool = False
    to: str | None = None
    generation: int | None = None
    """Of the routes that the caller saw; with another one nothing is done."""


_CHANGES: dict[str, Make] = {
    "/v1/rounds": lambda asked: RoundRequested(asked.reason, asked.actor),
    "/v1/rounds/cancel": lambda asked: RoundCancelRequested(asked.actor, asked.reason),
    "/v1/rollout/approve": lambda asked: RolloutApproved(asked.actor, asked.reason),
    "/v1/rollout/promote": lambda asked: RolloutPromoted(asked.actor, asked.reason, asked.full),
    "/v1/rollout/abort": lambda asked: RolloutAborted(asked.actor, asked.reason),
    "/v1/rollout/pause": lambda asked: RolloutPaused(asked.actor, asked.reason),
    "/v1/rollout/resume": lambda asked: RolloutResumed(asked.actor, asked.reason),
    "/v1/rollout/undo": lambda asked: UndoRequested(asked.actor, asked.reason, asked.to),
}


class Daemon(Protocol):
    """What the API needs of the daemon."""

    async def status(self) -> dict[str, Any]: ...

    async def submit(self, event: Event, expected_generation: int | None) -> tuple[str, bool]:
        """Journal and act; the note of the transition, and whether it was refused."""
        ...

    async def routes_newer_than(self, generation: int, wait_seconds: float) -> Routes | None: ...

    def polled(self, gateway: str, generation: int, wait_seconds: float) -> None:
        """A gateway that uses this generation waits for a newer one."""
        ...

    def reported(self, report: GatewayReport) -> None: ...

    def left(self, gateway: str) -> None: ...

    def rollout(self) -> dict[str, Any] | None: ...

    async def rollouts(self) -> list[dict[str, Any]]: ...

    def gateways(self) -> list[dict[str, Any]]: ...

    def replicas(self) -> list[dict[str, Any]]: ...

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
    app.router.add_get("/v1/rollout", api.rollout)
    app.router.add_get("/v1/rollouts", api.rollouts)
    app.router.add_get("/v1/adapters", api.adapters)
    app.router.add_get("/v1/gateways", api.gateways)
    app.router.add_put("/v1/gateways/{id}", api.report)
    app.router.add_delete("/v1/gateways/{id}", api.leave)
    app.router.add_get("/v1/replicas", api.replicas)
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
        if gateway := request.query.get("gateway"):
            self._daemon.polled(gateway[:_NAME_CHARACTERS], int(after), wait)
        found = await self._daemon.routes_newer_than(int(after), wait)
        return web.json_response(found.to_json()) if found else web.Response(status=204)

    async def report(self, request: web.Request) -> web.Response:
        """A gateway's counters. They may end a rollout, so they need the token like any change."""
        self._authorize(request)
        try:
            report = report_from_json(request.match_info["id"][:_NAME_CHARACTERS], await request.json())
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        self._daemon.reported(report)
        return web.Response(status=204)

    async def leave(self, request: web.Request) -> web.Response:
        """A gateway ends: nothing waits for it any more."""
        self._authorize(request)
        self._daemon.left(request.match_info["id"][:_NAME_CHARACTERS])
        return web.Response(status=204)

    async def gateways(self, request: web.Request) -> web.Response:
        return web.json_response({"gateways": self._daemon.gateways()})

    async def replicas(self, request: web.Request) -> web.Response:
        return web.json_response({"replicas": self._daemon.replicas()})

    async def rollout(self, request: web.Request) -> web.Response:
        found = self._daemon.rollout()
        if found is None:
            raise web.HTTPNotFound(text="there was no rollout yet; a candidate that passes the gate begins one")
        return web.json_response(found)

    async def rollouts(self, request: web.Request) -> web.Response:
        return web.json_response({"rollouts": await self._daemon.rollouts()})

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
        self._authorize(request)
        asked = await _asked(request)
        async with asyncio.timeout(_SUBMIT_SECONDS):
            note, refused = await self._daemon.submit(_CHANGES[request.path](asked), asked.generation)
        return web.json_response({"note": note, "refused": refused}, status=409 if refused else 200)

    def _authorize(self, request: web.Request) -> None:
        if not is_authorized(request.headers.get("Authorization"), self._token):
            raise web.HTTPUnauthorized(text="this route changes something; send the token of data_dir as Bearer")


async def _asked(request: web.Request) -> _Asked:
    try:
        body = await request.json() if request.can_read_body else {}
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object with `actor` and `reason`")
    full, to, generation = body.get("full", False), body.get("to"), body.get("expected_generation")
    if not isinstance(full, bool) or not (to is None or isinstance(to, str)):
        raise web.HTTPBadRequest(text="`full` is true or false, `to` the name of an adapter")
    if generation is not None and type(generation) is not int:
        raise web.HTTPBadRequest(text="`expected_generation` is the generation of the routes that you saw")
    actor = str(body.get("actor") or "api")[:_NAME_CHARACTERS]
    return _Asked(actor, str(body.get("reason") or "no reason given")[:_REASON_CHARACTERS], full, to, generation)


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
