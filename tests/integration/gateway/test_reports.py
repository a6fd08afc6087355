"""What a gateway tells the daemon: the acknowledgement of a flip at once, and everything else every second or so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import DURATION_EDGES

Start = Callable[..., Awaitable[Any]]


async def test_a_flip_is_acknowledged_at_once(start_gateway: Start, upstream: Any, daemon: Any) -> None:
    daemon.routes = Routes(1, "a")
    await start_gateway(daemon_url=daemon.url, report_seconds=30.0)
    await daemon.report(lambda report: report["generation"] == 1)
    await asyncio.sleep(0.1)
    loop = asyncio.get_running_loop()
    for generation in range(2, 7):
        started = loop.time()
        daemon.publish(Routes(generation, "a"))
        await daemon.report(lambda report, generation=generation: report["generation"] == generation)  # type: ignore[misc]
        assert loop.time() - started < 0.25
    assert len({report["gateway"] for report in daemon.reports}) == 1


async def test_in_flight_follows_the_model_that_is_asked(start_gateway: Start, upstream: Any, daemon: Any) -> None:
    upstream.models.add("p")
    upstream.tokens, upstream.pause = 8, 0.05
    daemon.routes = Routes(1, "missing", "p")
    gateway = await start_gateway(daemon_url=daemon.url, report_seconds=0.05)
    async with gateway.chat(stream=True) as response:
        await daemon.report(lambda report: report["in_flight"] == {"p": 1})
        await response.read()
    await asyncio.sleep(0.15)
    last = daemon.reports[-1]
    assert last["in_flight"] == {}
    assert len(last["durations"]) == len(DURATION_EDGES) + 1
    assert sum(last["durations"]) == 1
    slower = sum(last["durations"][next(i for i, edge in enumerate(DURATION_EDGES) if edge >= 0.4) :])
    assert slower == 1
    assert (last["captured"], last["capture_dropped"]) == (0, 0)


async def test_the_last_report_says_that_nothing_is_in_flight(start_gateway: Start, upstream: Any, daemon: Any) -> None:
    upstream.models.add("a")
    upstream.tokens, upstream.pause = 20, 0.03
    daemon.routes = Routes(1, "a")
    gateway = await start_gateway(daemon_url=daemon.url)
    async with gateway.chat(stream=True) as response:
        await response.content.readany()
        gateway.stop.set()
        daemon.publish(Routes(2, "a"))
        # It drains, and still says so.
        await daemon.report(lambda report: report["generation"] == 2 and report["in_flight"] == {"a": 1})
        await response.read()
    await asyncio.wait_for(gateway.task, 5)
    assert daemon.reports[-1]["in_flight"] == {}
    assert daemon.left == [daemon.reports[-1]["gateway"]], "nothing waits for its lease"


async def test_the_token_comes_from_the_config_or_the_file_and_is_read_again_when_refused(
    start_gateway: Start, daemon: Any, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text("own-token\n")
    daemon.token = "own-token"
    await start_gateway(daemon_url=daemon.url, daemon_token=f"file:{tmp_path / 'own'}")
    await daemon.report(lambda report: True)
    daemon.token = "second"
    (tmp_path / "control.token").write_text("first")
    gateway = await start_gateway(daemon_url=daemon.url)
    known = {report["gateway"] for report in daemon.reports}
    await asyncio.sleep(0.3)
    assert {report["gateway"] for report in daemon.reports} == known
    (tmp_path / "control.token").write_text("second\n")
    await daemon.report(lambda report: report["gateway"] not in known)
    assert (await gateway.metrics())["tao_gateway_failed_reports_total"] >= 1


async def test_a_daemon_that_takes_no_reports_is_counted_and_disturbs_nobody(
    start_gateway: Start, upstream: Any, daemon: Any
) -> None:
    daemon.report_status = 500
    gateway = await start_gateway(daemon_url=daemon.url, report_seconds=0.05)
    assert [await gateway.version() for _ in range(5)] == ["base"] * 5
    await asyncio.sleep(0.2)
    failed = (await gateway.metrics())["tao_gateway_failed_reports_total"]
    assert failed >= 2
    daemon.report_status = 204
    await daemon.report(lambda report: sum(report["durations"]) == 5)
