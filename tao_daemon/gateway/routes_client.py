"""Keeps the gateway's routes current: long-polls the daemon, and serves on from a file when it is down.

A higher generation replaces a lower one wherever it comes from, so the order of arrival does not matter.

file → daemon → base model   then   long-poll ⇄ retry, beside a watch on the file
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tao_daemon.clients.storage import atomic_write_json
from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.token import Token

log = logging.getLogger(__name__)

WAIT_SECONDS = 30
"""How long the daemon holds a poll open; it answers at once when routes change."""
_GRACE_SECONDS = 10.0
_FIRST_POLL_SECONDS = 3.0
_RETRY_SECONDS = 0.5
"""Between attempts at the daemon, and between looks at the file: an undo without a daemon takes this long."""


class RoutesClient:
    """`routes` is always valid. `load` once, then `run` until cancelled."""

    def __init__(
        self,
        daemon_url: str,
        routes_file: Path,
        gateway_id: str,
        session: aiohttp.ClientSession,
        token: Token,
        observe: Callable[[Routes, bool], None],
    ) -> None:
        """`observe(routes, connected)` is called at every change of either."""
        self._url = f"{daemon_url.rstrip('/')}/v1/routes"
        self._file = routes_file
        self._id = gateway_id
        self._session = session
        self._token = token
        self._observe = observe
        self._connected: bool | None = None
        self._file_stamp: tuple[int, int] | None = None
        self.routes = Routes(0, None)

    async def load(self) -> None:
        """The routes to start with: the file's, else the daemon's, else the base model."""
        self._observe(self.routes, False)
        if self._adopt_file():
            return
        try:
            await self._poll(0, _FIRST_POLL_SECONDS)
        except _Unavailable as error:
            self._set_connected(False, str(error))

    async def run(self) -> None:
        """Follow the daemon and the file until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_daemon())
            group.create_task(self._follow_file())

    async def _follow_daemon(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            next_try = clock() + _RETRY_SECONDS
            try:
                advanced = await self._poll(WAIT_SECONDS, WAIT_SECONDS + _GRACE_SECONDS)
            except _Unavailable as error:
                self._set_connected(False, str(error))
                advanced = False
            if not advanced:
                # Only after a quick answer: an error, or a daemon that does not hold the poll open.
                await asyncio.sleep(max(0.0, next_try - clock()))

    async def _follow_file(self) -> None:
        """The standard library cannot await a change of a file; one stat per interval is what that costs."""
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            self._adopt_file()

    async def _poll(self, wait: int, deadline: float) -> bool:
        """Ask the daemon for routes after ours; whether it gave newer ones. Raises _Unavailable."""
        query = {"after": str(self.routes.generation), "gateway": self._id, "wait": str(wait)}
        timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=_FIRST_POLL_SECONDS)
        try:
            headers = self._token.headers()
            async with self._session.get(self._url, params=query, headers=headers, timeout=timeout) as response:
                body, status = await response.read(), response.status
            if status == 401:
                self._token.refused()
            if status not in (200, 204):
                raise _Unavailable(f"{self._url} answered {status}")
            routes = Routes.from_json(json.loads(body)) if status == 200 else self.routes
        except TimeoutError:
            raise _Unavailable(f"{self._url} did not answer within {deadline:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Unavailable(f"cannot reach {self._url}: {type(error).__name__}") from None
        except ValueError as error:
            raise _Unavailable(f"{self._url}: {error}") from None
        self._set_connected(True, self._url)
        if not self._adopt(routes, "daemon"):
            return False
        await self._save()
        return True

    def _adopt(self, routes: Routes, origin: str) -> bool:
        if routes.generation <= self.routes.generation:
            return False
        self.routes = routes
        self._observe(routes, bool(self._connected))
        log.info("routes adopted", extra={**routes.to_json(), "origin": origin})
        return True

    def _adopt_file(self) -> bool:
        """Read the file when it changed; whether it holds routes at all."""
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp == self._file_stamp:
                return True
            self._file_stamp = stamp
            self._adopt(Routes.from_json(json.loads(self._file.read_bytes())), "file")
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.warning("routes file ignored", extra={"path": str(self._file), "error": str(error)})
            return False
        return True

    async def _save(self) -> None:
        """Keep the routes for a start without a daemon. The daemon may write the same file: never go back."""
        try:
            await asyncio.to_thread(_write_if_newer, self._file, self.routes)
        except OSError as error:
            log.warning("routes not cached", extra={"path": str(self._file), "error": str(error)})

    def _set_connected(self, connected: bool, detail: str) -> None:
        if connected == self._connected:
            return
        self._connected = connected
        self._observe(self.routes, connected)
        if connected:
            log.info("daemon reached", extra={"detail": detail})
        else:
            log.warning("daemon lost; serving on with the last routes", extra={"detail": detail})


class _Unavailable(Exception):
    """The daemon gave no answer to go by; the message says why."""


def _write_if_newer(path: Path, routes: Routes) -> None:
    try:
        if Routes.from_json(json.loads(path.read_bytes())).generation >= routes.generation:
            return
    except (FileNotFoundError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, routes.to_json())
