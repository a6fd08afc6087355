"""A real journal that grows, a receiver over real HTTP that fails as it is told to, and notifiers between them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bench.past import remember
from tao_daemon.app.notifications import Notifications, notifying
from tao_daemon.config import Config, parse_config
from tao_daemon.domain.events import Event, ReplicaDrifted, ReplicaHealed
from tao_daemon.domain.signals import NotificationLag, NotificationSent, Signal
from tao_daemon.embedded.processes import free_port
from tao_daemon.notification.notifier import Pauses
from tao_daemon.registry.journal import Journal

QUICK = Pauses(0.02, 0.1)


@dataclass
class Receiver:
    """Answers with the statuses of `script`, one after the other, then 200. `hang` answers nothing."""

    port: int = field(default_factory=free_port)
    script: list[int | str] = field(default_factory=list)
    requests: list[tuple[int | str, dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/very-secret"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/services/T0/very-secret", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        answer = self.script.pop(0) if self.script else 200
        self.requests.append((answer, dict(request.headers), body))
        if answer == "hang":
            await asyncio.sleep(30)
        return web.Response(status=200 if answer == "hang" else int(answer), headers=self.headers)

    def taken(self) -> list[dict[str, Any]]:
        """What was answered with 2xx."""
        return [json.loads(body) for answer, _, body in self.requests if answer != "hang" and int(answer) < 300]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    running = Receiver()
    await running.start()
    yield running
    await running.stop()


@dataclass
class Teller:
    """A data directory whose journal grows, and whoever is told of it."""

    root: Path
    stack: AsyncExitStack
    signals: list[Signal] = field(default_factory=list)
    running: Notifications | None = None

    def config(self, **events: Any) -> Config:
        return parse_config(
            {
                "daemon": {"data_dir": str(self.root)},
                "rollout": {"mode": "auto"},
                "events": {"source": "tao-test", **events},
            }
        )

    def append(self, *events: Event) -> None:
        remember(self.config(), events, repeat(time.time()))
        if self.running:
            self.running.nudge()

    def flap(self, count: int) -> None:
        """`count` events, alternating, that are each told once."""
        for number in range(count):
            url = f"http://vllm-{number // 2}"
            self.append(ReplicaHealed(url, "ok") if number % 2 else ReplicaDrifted(url, "gone"))

    async def start(self, **events: Any) -> None:
        config = self.config(**events)
        self.running = await self.stack.enter_async_context(notifying(config, self.signals.append, QUICK))

    async def stop(self) -> None:
        await self.stack.aclose()
        self.running = None

    async def restart(self, **events: Any) -> None:
        await self.stop()
        await self.start(**events)

    def outcomes(self) -> list[str]:
        return [signal.outcome for signal in self.signals if isinstance(signal, NotificationSent)]

    def lags(self) -> list[int]:
        return [signal.entries for signal in self.signals if isinstance(signal, NotificationLag)]


@pytest.fixture
async def teller(tmp_path: Path) -> AsyncIterator[Teller]:
    Journal(tmp_path / "control.db").close()
    async with AsyncExitStack() as stack:
        yield Teller(tmp_path, stack)


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def hook(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An [[events.webhooks]] entry for the receiver, with CloudEvents."""
    monkeypatch.setenv("HOOK", receiver.url)
    return {"name": "hook", "url": "env:HOOK", "format": "cloudevents", "timeout_seconds": 0.3}
