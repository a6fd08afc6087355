"""What a gateway answers by itself, and the table of everything it answers at all.

A table and no router: there are six paths, matched to the byte, and nothing else reaches a handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from tao_daemon.gateway.proxy import Proxy
from tao_daemon.gateway.routing import error_body, model_list
from tao_daemon.gateway.scrape import Exposition, scraped

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Handlers:
    """Every route of one gateway. `draining` ends readiness."""

    def __init__(self, proxy: Proxy, exposition: Exposition | None, public_model: str) -> None:
        """`exposition` gives this process's metrics; None where others share the port, and any of them may answer."""
        self._exposition = exposition
        self._public_model = public_model
        self.draining = False
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/chat/completions": ("POST", proxy.forward),
            "/v1/completions": ("POST", proxy.forward),
            "/v1/models": ("GET", self.models),
            "/livez": ("GET", self.livez),
            "/readyz": ("GET", self.readyz),
            "/metrics": ("GET", self.metrics),
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Refusals come as clients of this API expect them. The path is not repeated: it is the client's text."""
        method, handler = self._routes.get(request.path, ("", None))
        if handler is None:
            return _refusal(404, "Not Found", {})
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            return _refusal(405, "Method Not Allowed", {"Allow": method})
        return await handler(request)

    async def models(self, request: web.BaseRequest) -> web.Response:
        return web.json_response(model_list(self._public_model))

    async def livez(self, request: web.BaseRequest) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(self, request: web.BaseRequest) -> web.Response:
        if self.draining:
            return web.Response(status=503, text="stopping\n")
        return web.Response(text="ready\n")

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        if self._exposition is None:
            text = "several processes share this port; each has its metrics on gateway.metrics_port + its number\n"
            return web.Response(status=404, text=text)
        return scraped(self._exposition)


def _refusal(status: int, reason: str, headers: dict[str, str]) -> web.Response:
    body = error_body(reason, "invalid_request_error", reason.lower().replace(" ", "_"))
    return web.json_response(body, status=status, headers=headers)
