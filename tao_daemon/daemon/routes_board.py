"""The routes that gateways see: on disk first, then to everyone who waits for a newer generation."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tao_daemon.clients.storage import atomic_write_json
from tao_daemon.domain.rollout import Routes


class RoutesBoard:
    """Publishes routes to `path` and to long-polling gateways."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._routes: Routes | None = None
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def current(self) -> Routes | None:
        return self._routes

    def publish(self, routes: Routes) -> None:
        """Make these the routes. Going back to an older generation is a bug."""
        assert self._routes is None or routes.generation >= self._routes.generation
        write_routes(self._path, routes)
        self._routes = routes
        self._wake()

    def close(self) -> None:
        """Whoever waits is answered at once: nothing newer will come."""
        self._closed = True
        self._wake()

    async def newer_than(self, generation: int, wait_seconds: float) -> Routes | None:
        """The routes once their generation exceeds `generation`; None when the wait ends first."""
        try:
            async with asyncio.timeout(wait_seconds):
                while not self._closed and not self._is_newer(generation):
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._routes if self._is_newer(generation) else None

    def _is_newer(self, generation: int) -> bool:
        return self._routes is not None and self._routes.generation > generation

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def write_routes(path: Path, routes: Routes) -> None:
    """The file that gateways fall back to while the daemon is down."""
    atomic_write_json(path, routes.to_json())
