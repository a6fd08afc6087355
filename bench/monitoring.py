"""A real Prometheus with the project's rules, an Alertmanager, and a webhook that remembers what it was told."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from grafana.scraping import configuration, running, scraping
from tao_daemon.embedded.processes import Command, free_port

_READY_SECONDS = 60.0


@dataclass
class Monitoring:
    """What watches an installation. Times are monotonic seconds."""

    session: aiohttp.ClientSession
    prometheus: str = ""
    """Its base URL."""
    told: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)
    """Alerts in the order they arrived at the webhook, each with its status, labels and annotations."""
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that a PromQL expression gives now."""
        url = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        async with self.session.get(url) as response:
            found: list[dict[str, Any]] = (await response.json())["data"]["result"]
        return found

    async def alert(self, name: str, status: str, seconds: float, *, since: float = 0.0) -> tuple[float, Any]:
        """The first time from `since` on that the webhook was told of the alert with that status, and what."""
        async with asyncio.timeout(seconds):
            while True:
                heard = self._heard
                for at, alert in self.told:
                    if at >= since and alert["labels"]["alertname"] == name and alert["status"] == status:
                        return at, alert
                await heard.wait()

    def take(self, message: Mapping[str, Any]) -> None:
        """What Alertmanager tells the webhook."""
        for alert in message["alerts"]:
            self.told.append((time.monotonic(), alert))
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()


@asynccontextmanager
async def monitoring(
    root: Path, jobs: Mapping[str, Sequence[str]], *, interval: str = "5s"
) -> AsyncIterator[Monitoring]:
    """Watch `jobs` (name to host:port targets) by the rules of deploy/prometheus."""
    root.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as exits:
        session = await exits.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)))
        watching = Monitoring(session)
        hook = await exits.enter_async_context(webhook(watching.take))
        manager = await exits.enter_async_context(alertmanager(root, json.dumps(_routes_to(hook))))
        config = configuration(jobs, interval=interval, alertmanagers=[manager])
        watching.prometheus = await exits.enter_async_context(scraping(root, config, _READY_SECONDS))
        yield watching


def _routes_to(hook: str) -> dict[str, Any]:
    return {
        "route": {"receiver": "hook", "group_wait": "1s", "group_interval": "5s", "group_by": ["alertname"]},
        "receivers": [{"name": "hook", "webhook_configs": [{"url": hook, "send_resolved": True}]}],
    }


@asynccontextmanager
async def alertmanager(folder: Path, config: str) -> AsyncIterator[str]:
    """Run Debian's Alertmanager with data and log in `folder`; its host:port. `config` is YAML. EmbeddedError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "alertmanager.yml"
    path.write_text(config)
    address = f"127.0.0.1:{free_port()}"
    flags = (
        f"--config.file={path}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )
    # Debian's name; elsewhere it is `alertmanager`.
    command = Command("alertmanager", ("prometheus-alertmanager", *flags), folder / "alertmanager.log")
    async with running(command, address, _READY_SECONDS):
        yield address


@asynccontextmanager
async def webhook(take: Callable[[Any], None]) -> AsyncIterator[str]:
    """Takes JSON on a port of its own; its URL."""

    async def answer(request: web.Request) -> web.Response:
        take(await request.json())
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()
