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

    @property
    def current(self) -> Routes | None:
        return self._routes

    def publish(self, routes: Routes) -> None:
        """Make these the routes. Going back to an older generation is a bug."""
        assert self._routes is None or routes.generation >= self._routes.generation
        write_routes(self._path, routes)
        self._routes = routes
        self._changed.set()
        self._changed = asyncio.Event()

    async def newer_than(self, generation: int, wait_seconds: float) -> Routes | None:
        """The routes once their generation exceeds `generation`; None when the wait ends first."""
        try:
            async with asyncio.timeout(wait_seconds):
                while self._routes is None or self._routes.generation <= generation:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._routes


def write_routes(path: Path, routes: Routes) -> None:
    """The file that gateways fall back to while the daemon is down."""
    atomic_write_json(path, routes.to_json())
