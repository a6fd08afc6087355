"""A real Prometheus with the project's rules, an Alertmanager, and a webhook that remembers what it was told."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from grafana.scraping import configuration, scraping
from tao_daemon.embedded.processes import Command, ManagedProcess, free_port

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

    async def take(self, request: web.Request) -> web.Response:
        """The webhook."""
        for alert in (await request.json())["alerts"]:
            self.told.append((time.monotonic(), alert))
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()
        return web.Response()


@asynccontextmanager
async def monitoring(
    root: Path, jobs: Mapping[str, Sequence[str]], *, interval: str = "5s"
) -> AsyncIterator[Monitoring]:
    """Watch `jobs` (name to host:port targets) by the rules of deploy/prometheus."""
    root.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as exits:
        session = await exits.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)))
        watching = Monitoring(session)
        hook = await exits.enter_async_context(_webhook(watching))
        manager = f"127.0.0.1:{free_port()}"
        command = Command("alertmanager", tuple(_alertmanager(root, hook, manager)), root / "alertmanager.log")
        process = await ManagedProcess.start(command)
        exits.push_async_callback(process.stop, 20.0)
        await process.wait_ready(partial(_is_ready, session, f"http://{manager}/-/ready"), deadline_s=_READY_SECONDS)
        config = configuration(jobs, interval=interval, alertmanagers=[manager])
        watching.prometheus = await exits.enter_async_context(scraping(root, config, _READY_SECONDS))
        yield watching


def _alertmanager(root: Path, hook: str, address: str) -> list[str]:
    config = {
        "route": {"receiver": "hook", "group_wait": "1s", "group_interval": "5s", "group_by": ["alertname"]},
        "receivers": [{"name": "hook", "webhook_configs": [{"url": hook, "send_resolved": True}]}],
    }
    path = root / "alertmanager.yml"
    path.write_text(json.dumps(config))
    # Debian's name; elsewhere it is `alertmanager`.
    return [
        "prometheus-alertmanager",
        f"--config.file={path}",
        f"--storage.path={root / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]


@asynccontextmanager
async def _webhook(watching: Monitoring) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", watching.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
