"""Several processes on one port, as `tao-daemon gateway` starts them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.rollout import Routes
from tao_daemon.embedded.processes import free_port
from tao_daemon.gateway.workers import run_workers


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def parent(upstream: Any, daemon: Any, tmp_path: Path) -> Any:
    """The parent of two workers, and the URL they share."""
    daemon.routes = Routes(1, None)
    port = free_port()
    (tmp_path / "config.toml").write_text(
        f'[daemon]\ndata_dir = "{tmp_path}"\nshutdown_seconds = 5.0\n[serving]\nreplicas = ["{upstream.url}"]\n'
        f'[gateway]\nport = {port}\nprocesses = 2\ndaemon_url = "{daemon.url}"\nreport_seconds = 0.2\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tao_daemon", "gateway", "--config", str(tmp_path / "config.toml"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    yield process, f"http://127.0.0.1:{port}"
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def ask(url: str) -> int:
    """One request on a connection of its own, so that any worker may get it."""
    body = {"messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.read()
        return response.status


async def test_workers_share_the_port_come_back_when_they_die_and_drain_together(parent: Any, daemon: Any) -> None:
    process, url = parent
    gateways = await until(lambda: {report["gateway"] for report in daemon.reports}, 30)
    gateways = await until(lambda: len(found := {report["gateway"] for report in daemon.reports}) == 2 and found, 30)
    workers = children(process.pid)
    assert len(workers) == 2
    assert [await ask(url) for _ in range(20)] == [200] * 20
    await until(lambda: len({r["gateway"] for r in daemon.reports if sum(r["durations"])}) == 2)
    os.kill(min(workers), signal.SIGKILL)
    await until(lambda: len({report["gateway"] for report in daemon.reports} - gateways) == 1, 30)
    assert [await ask(url) for _ in range(10)] == [200] * 10
    workers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 15) == 0
    assert not [pid for pid in workers if alive(pid)]


async def test_workers_do_not_outlive_a_parent_that_is_killed(parent: Any, daemon: Any) -> None:
    process, _ = parent
    await until(lambda: len({report["gateway"] for report in daemon.reports}) == 2, 30)
    workers = children(process.pid)
    process.kill()
    await until(lambda: not [pid for pid in workers if alive(pid)])


async def test_a_port_of_their_own_or_somebody_elses_is_refused(start_gateway: Callable[..., Awaitable[Any]]) -> None:
    gateway = await start_gateway()
    taken = int(gateway.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        await run_workers(["true"], 2, ("127.0.0.1", taken), asyncio.Event(), 1.0)
    with pytest.raises(ConfigError, match=r"gateway\.port"):
        await run_workers(["true"], 2, ("127.0.0.1", 0), asyncio.Event(), 1.0)
