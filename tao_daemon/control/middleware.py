"""Around every request: a limit on its body, headers that keep browsers safe, an end for bugs, and how long it took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tao_daemon.control import problems

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1_048_576
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)

Observe = Callable[[str, str, int, float], None]
"""Method, route template, status, seconds."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, got, answering, cut = time.monotonic(), 500, 0, False, False

        async def limited() -> Message:
            nonlocal got, cut
            message = await receive()
            got += len(message.get("body", b""))
            if got > MAX_BODY_BYTES:
                if answering:
                    cut = True
                    return {"type": "http.disconnect"}
                raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")
            return message

        async def guarded(message: Message) -> None:
            nonlocal status, answering, cut
            cut = cut and message.get("more_body", False)
            if message["type"] == "http.response.start":
                status, answering = message["status"], True
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        try:
            await self._app(scope, limited, guarded)
            if cut:  # The reader is there and was told an answer's head: it gets an end too.
                await send({"type": "http.response.body"})
        except Exception as error:  # noqa: BLE001 - raised further, its message would be logged, whatever it quotes
            log.error("control API: a bug", extra={"path": scope["path"], "error_type": type(error).__name__})
            if not answering:
                await problems.bug()(scope, receive, guarded)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._observe(scope["method"], route, status, time.monotonic() - started)
