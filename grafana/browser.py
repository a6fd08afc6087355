"""A Chromium without a display that opens a page and takes its picture, over the DevTools protocol.

Every wait has a deadline; the browser and its profile are gone when the context ends.

open_browser → Browser.picture(url) per page → closed
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)


class BrowserError(Exception):
    """The browser did not start, or the page says that it failed."""


class Browser:
    """One connection to a running Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def picture(self, url: str, width: int, deadline_s: float) -> tuple[bytes, list[str]]:
        """PNG of the whole page, taken when its title begins with "drawn", and what the title says besides, cut at |.

        Raises BrowserError with the title when it begins with "failed", TimeoutError when neither comes.
        """
        async with asyncio.timeout(deadline_s):
            target = (await self._call("Target.createTarget", {"url": "about:blank"}))["targetId"]
            attached = await self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
            session = attached["sessionId"]
            await self._resize(session, width, 1000)
            await self._call("Page.navigate", {"url": url}, session)
            title = str(await self._evaluate(session, _TITLE))
            if title.startswith("failed"):
                raise BrowserError(f"{url}: {title}")
            height = await self._evaluate(session, "Promise.resolve(document.documentElement.scrollHeight)")
            await self._resize(session, width, int(height))
            shot = await self._call("Page.captureScreenshot", {"format": "png"}, session)
            await self._call("Target.closeTarget", {"targetId": target})
        return base64.b64decode(shot["data"]), title.split("|")[1:]

    async def _resize(self, session: str, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._call("Emulation.setDeviceMetricsOverride", size, session)

    async def _evaluate(self, session: str, expression: str) -> Any:
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        return (await self._call("Runtime.evaluate", asked, session))["result"].get("value")

    async def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        async for received in self._socket:
            answer = received.json()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found
        raise BrowserError(f"{method}: the browser closed the connection")


# A page that navigates loses its evaluations, so the promise looks at the title until it is one of the two.
_TITLE = """new Promise((found) => {
  const look = () => /^(drawn|failed)/.test(document.title) ? found(document.title) : setTimeout(look, 50);
  look();
})"""


@asynccontextmanager
async def open_browser(command: str = "chromium", start_s: float = 30.0) -> AsyncIterator[Browser]:
    """A fresh Chromium with a profile of its own. Raises BrowserError when it does not start."""
    async with AsyncExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            command, *_FLAGS, f"--user-data-dir={profile}", stderr=pipe, stdout=asyncio.subprocess.DEVNULL
        )
        stack.push_async_callback(_stop, process)
        address = await asyncio.wait_for(_address(process), start_s)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        socket = await stack.enter_async_context(session.ws_connect(address, max_msg_size=0))
        yield Browser(socket)


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        text = line.decode(errors="replace")
        if "DevTools listening on " in text:
            return text.split("DevTools listening on ", 1)[1].strip()
    raise BrowserError("the browser ended at its start: install Debian's chromium (deploy/system-packages.sh)")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    assert process.stderr is not None
    try:
        async with asyncio.timeout(10):
            # Read on, so that a full pipe holds nothing up.
            await process.stderr.read()
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
