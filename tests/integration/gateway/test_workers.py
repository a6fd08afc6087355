"""Several processes on one port, as `tao-daemon gateway` starts them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

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


def two_free_ports() -> int:
    """The first of two in a row that nobody listens on."""
    for _ in range(50):
        first = free_port()
        with socket.socket() as second, suppress(OSError, OverflowError):
            second.bind(("127.0.0.1", first + 1))
            return first
    raise AssertionError("no two free ports in a row")


async def scrape(url: str) -> tuple[int, dict[str, float]]:
    """Status, and the counts of requests that were answered well by kind; nothing where nobody listens."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
            families = text_string_to_metric_families(await response.text()) if response.status == 200 else ()
            samples = [sample for family in families for sample in family.samples]
    except aiohttp.ClientConnectionError:
        return 0, {}
    return response.status, {
        sample.labels.get("kind", sample.name): sample.value
        for sample in samples
        if sample.name == "process_start_time_seconds" or sample.labels.get("status") == "2xx"
    }


@pytest.fixture
async def parent(upstream: Any, daemon: Any, tmp_path: Path) -> Any:
    """The parent of two workers, the URL they share, and those of their metrics."""
    daemon.routes = Routes(1, None)
    port, metrics_port = free_port(), two_free_ports()
    (tmp_path / "config.toml").write_text(
        f'[daemon]\ndata_dir = "{tmp_path}"\nshutdown_seconds = 5.0\n[serving]\nreplicas = ["{upstream.url}"]\n'
        f"[gateway]\nport = {port}\nprocesses = 2\nmetrics_port = {metrics_port}\n"
        f'daemon_url = "{daemon.url}"\nreport_seconds = 0.2\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tao_daemon", "gateway", "--config", str(tmp_path / "config.toml"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    yield process, f"http://127.0.0.1:{port}", [f"http://127.0.0.1:{metrics_port + number}" for number in range(2)]
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
    process, url, _ = parent
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


async def test_every_worker_is_a_target_of_its_own(parent: Any, daemon: Any) -> None:
    process, url, targets = parent
    await until(lambda: len({report["gateway"] for report in daemon.reports}) == 2, 30)
    assert [await ask(url) for _ in range(20)] == [200] * 20
    found = [await scrape(target) for target in targets]
    assert [status for status, _ in found] == [200, 200]
    assert sum(counts["base"] for _, counts in found) == 20
    assert all(counts["base"] for _, counts in found), "the kernel spreads connections over both"
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        assert response.status == 404, "it would be any one of them"
        assert "gateway.metrics_port" in await response.text()
    async with aiohttp.ClientSession() as session, session.post(f"{targets[0]}/v1/chat/completions") as response:
        assert response.status == 404, "nothing but metrics is there"
    first = {(await scrape(target))[1]["process_start_time_seconds"] for target in targets}
    os.kill(min(children(process.pid)), signal.SIGKILL)
    async with asyncio.timeout(30):
        while (found := [await scrape(target) for target in targets]) and any(status != 200 for status, _ in found):
            await asyncio.sleep(0.1)
        while len({counts["process_start_time_seconds"] for _, counts in found} - first) != 1:
            await asyncio.sleep(0.1)
            found = [await scrape(target) for target in targets]
    assert sorted(counts["base"] for _, counts in found)[0] == 0, "a new process counts from the start"


async def test_workers_do_not_outlive_a_parent_that_is_killed(parent: Any, daemon: Any) -> None:
    process, _, _ = parent
    await until(lambda: len({report["gateway"] for report in daemon.reports}) == 2, 30)
    workers = children(process.pid)
    process.kill()
    await until(lambda: not [pid for pid in workers if alive(pid)])


async def test_a_port_of_their_own_or_somebody_elses_is_refused(start_gateway: Callable[..., Awaitable[Any]]) -> None:
    gateway = await start_gateway()
    taken = int(gateway.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        await run_workers(["true"], 2, ("127.0.0.1", taken), asyncio.Event(), 1.0)
    with pytest.raises(OSError, match=f"in use: 127.0.0.1:({taken - 1}|{taken})"):
        await run_workers(["true"], 2, ("127.0.0.1", free_port()), asyncio.Event(), 1.0, metrics_port=taken - 1)
    with pytest.raises(ConfigError, match=r"gateway\.port"):
        await run_workers(["true"], 2, ("127.0.0.1", 0), asyncio.Event(), 1.0)
