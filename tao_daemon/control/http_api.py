"""The control API: one FastAPI application. `GET /openapi.json` describes it, types, scopes and errors included.

Open: /livez /readyz /metrics /openapi.json and the console's files. Everything else demands a token with a scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from tao_daemon import __version__
from tao_daemon.control import problems
from tao_daemon.control.access import Access
from tao_daemon.control.auth import Authenticator
from tao_daemon.control.changes import change_routes, token_routes
from tao_daemon.control.gateway_routes import gateway_routes
from tao_daemon.control.live import LiveFeed
from tao_daemon.control.middleware import Guard, Observe
from tao_daemon.control.records import Records
from tao_daemon.control.service import Service
from tao_daemon.control.views import live_route, open_routes, read_routes, record_routes, whoami_route

CONSOLE: Final = Path(__file__).parent / "console"


@dataclass(frozen=True, slots=True)
class Api:
    """What the application is made of."""

    service: Service
    records: Records
    feed: LiveFeed
    authenticator: Authenticator
    observe: Observe

    def dismiss(self) -> None:
        """End what waits for something to happen: streams of events, and gateways for newer routes."""
        self.feed.close()
        self.service.board.close()


def build_app(api: Api) -> FastAPI:
    """The application. Its own documentation pages are off: they would load scripts from elsewhere."""
    app = FastAPI(
        title="tao-daemon control API",
        version=__version__,
        summary="What serves, why, and how to change it.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    app.add_middleware(Guard, observe=api.observe)
    access = Access(api.authenticator)
    for router in (
        open_routes(api.service),
        read_routes(api.service, access),
        record_routes(api.records, access),
        live_route(api.feed, access),
        change_routes(api.service, access),
        gateway_routes(api.service, access),
        token_routes(api.service, access),
        whoami_route(access),
    ):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    @app.get("/console", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/console/")

    app.mount("/console", StaticFiles(directory=CONSOLE, html=True), name="console")
    return app
