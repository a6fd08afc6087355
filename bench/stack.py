"""A whole installation for measurements: model servers, broker, daemon, gateways; a journal with a past.

The adapters are random, and the journal says that they settled before: what is measured is how they are served.

model → vLLM replicas → journal → daemon → gateway → (load, verbs, faults) → all ended
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from bench.past import remember
from bench.random_adapter import publish_random_adapters
from tao_daemon.config import Config, load_config
from tao_daemon.domain.events import Event
from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.embedded.model import tiny_random_model
from tao_daemon.embedded.processes import Command, ManagedProcess, free_port
from tao_daemon.embedded.vllm_server import EmbeddedVllm
from tao_daemon.registry.adapter_store import DirectoryAdapterStore

_READY_SECONDS = 60.0
_HTTP = aiohttp.ClientTimeout(total=15.0)


@dataclass
class Stack:
    """What runs, and how to speak to it. Processes are replaced when they are started again."""

    root: Path
    config: Config
    replicas: list[EmbeddedVllm]
    adapters: list[str]
    session: aiohttp.ClientSession
    broker: str
    processes: dict[str, ManagedProcess] = field(default_factory=dict)

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.config.control.port}"

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.config.gateway.port}"

    @property
    def token(self) -> str:
        return (self.config.daemon.data_dir / "control.token").read_text()

    def remember(self, events: Sequence[Event]) -> None:
        """Write a past into the journal; only while the daemon is down."""
        remember(self.config, events, count(0.0))

    async def start(self, name: str) -> None:
        """`daemon` or `gateway`; returns when it is ready."""
        command, url = ("run", self.control) if name == "daemon" else ("gateway", self.gateway)
        argv = (sys.executable, "-m", "tao_daemon", command, "--config", str(self.root / "config.toml"))
        process = await ManagedProcess.start(Command(name, argv, self.root / f"{name}.log"))
        self.processes[name] = process
        await process.wait_ready(partial(self._answers, f"{url}/readyz"), deadline_s=_READY_SECONDS)

    async def stop(self) -> None:
        for process in self.processes.values():
            await process.stop(20.0)

    async def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(self.control + path, headers=headers) as response:
            return await response.json()

    async def post(self, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.post(self.control + path, json={"actor": "bench", **body}, headers=headers) as response:
            return await response.json()

    async def until(self, condition: Any, seconds: float, what: str, *, path: str = "/v1/status") -> Any:
        """Ask `path` until the condition holds; what it then said. A daemon that is down is asked again."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        found = await self.get(path)
                    except (aiohttp.ClientError, TimeoutError, ValueError):
                        found = None
                    if found is not None and condition(found):
                        return found
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"waited {seconds:g} s for {what}; logs in {self.root}") from None

    async def _answers(self, url: str) -> bool:
        try:
            async with self.session.get(url) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


@asynccontextmanager
async def stack(
    root: Path,
    *,
    replicas: int,
    adapters: int,
    sections: dict[str, str] | None = None,
    model: Path | None = None,
    front: Callable[[str], AbstractAsyncContextManager[str]] | None = None,
) -> AsyncIterator[Stack]:
    """Running servers and an empty journal; daemon and gateway are yours to start. `sections` are lines of TOML.

    `model` is a folder; None is a tiny one of random weights. `front` puts something before each server's URL.
    """
    async with AsyncExitStack() as exits:
        model = model or await asyncio.to_thread(tiny_random_model, root / "model")
        broker = await exits.enter_async_context(EmbeddedBroker(log_path=root / "broker.log"))
        servers = []
        for number in range(replicas):
            server = EmbeddedVllm(model, served_model_name="base", kv_cache_gib=1, log_path=root / f"vllm-{number}.log")
            servers.append(await exits.enter_async_context(server))
        urls = [server.base_url for server in servers]
        if front:
            urls = [await exits.enter_async_context(front(url)) for url in urls]
        path = root / "config.toml"
        path.write_text(_config(root, model, broker.bootstrap, urls, sections or {}))
        config = load_config(path)
        store = DirectoryAdapterStore(config.daemon.data_dir / "adapters", max_rank=16)
        config.daemon.data_dir.mkdir(parents=True)
        names = await asyncio.to_thread(publish_random_adapters, model, root, store, adapters)
        session = await exits.enter_async_context(aiohttp.ClientSession(timeout=_HTTP))
        running = Stack(root, config, servers, names, session, broker.bootstrap)
        exits.push_async_callback(running.stop)
        yield running


def _config(root: Path, model: Path, broker: str, replicas: list[str], sections: dict[str, str]) -> str:
    q = json.dumps
    control = free_port()
    base = {
        "daemon": f"data_dir = {q(str(root / 'data'))}",
        "kafka": f"bootstrap_servers = [{q(broker)}]",
        "round": "min_new_prompts = 0",
        "training": f"base_model = {q(str(model))}",
        "serving": f'replicas = {q(replicas)}\nbase_model = "base"',
        "rollout": 'mode = "auto"',
        "gateway": f"port = {free_port()}\ndaemon_url = {q(f'http://127.0.0.1:{control}')}",
        "control": f"port = {control}",
    }
    extra = dict(sections)
    text = [f"[{name}]\n{lines}\n{extra.pop(name, '')}\n" for name, lines in base.items()]
    return "\n".join([*text, *(f"[{name}]\n{lines}\n" for name, lines in extra.items())])
