"""`kill -9` of the daemon, a gateway and a replica in every phase of a rollout, on two replicas and under load.

Traffic goes on, observed returns to desired, and no version ever answers that was not verified and due.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bench.live_load import LiveLoad
from bench.past import a_round, settling
from bench.stack import Stack, stack

pytestmark = [pytest.mark.vllm, pytest.mark.chaos, pytest.mark.timeout(2400)]

SECTIONS = {
    # Nothing moves by itself: a person promotes.
    "rollout": (
        "step_seconds = 36000.0\nbake_seconds = 36000.0\nshadow_pairs = 100000\nshadow_pairs_max = 100000\n"
        "evaluate_seconds = 0.5"
    ),
    "serving": "reconcile_seconds = 1.0\nlease_seconds = 5.0",
    "gateway": "processes = 2",
}
PHASES = ("shadow", "canary", "baking")
HEAL_SECONDS = 240.0


async def promote_to(running: Stack, phase: str) -> None:
    """Step by step up to the phase."""
    while True:
        status = await running.until(lambda s: s["rollout"] and s["rollout"]["phase"] != "staged", 120, "the shadow")
        if status["rollout"]["phase"] == phase:
            return
        assert (await running.post("/v1/rollout/promote", reason="test"))["refused"] is False


async def healthy(running: Stack, phase: str) -> dict[str, Any]:
    """The rollout is where it was, both gateways are there, and every replica has what it should, verified."""
    status = await running.until(
        lambda s: s["rollout"]["phase"] == phase and s["fleet"]["gateways"] == 2 and not s["fleet"]["unready"],
        HEAL_SECONDS,
        f"the fleet to heal in {phase}",
    )
    wanted = {status["incumbent"]["adapter"], status["incumbent"]["previous"], status["rollout"]["adapter"]} - {None}
    await running.until(
        lambda found: all(each["ready"] and wanted <= set(each["adapters"]) for each in found["replicas"]),
        HEAL_SECONDS,
        "every replica to have every adapter",
        path="/v1/replicas",
    )
    return dict(status)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


async def kill_daemon(running: Stack) -> None:
    """The command, and not the guard that would end it too."""
    guard = running.processes["daemon"]
    (pid,) = children(guard.pid)[:1]
    os.kill(pid, signal.SIGKILL)
    await guard.wait()
    await asyncio.sleep(2.0)
    await running.start("daemon")


async def kill_gateway(running: Stack) -> None:
    """One of the two processes that share the port: the parent starts another."""
    workers = [pid for pid in children(running.processes["gateway"].pid) if not children(pid)]
    os.kill(workers[-1], signal.SIGKILL)
    await asyncio.sleep(1.0)


async def kill_replica(running: Stack) -> None:
    server = running.replicas[-1]
    assert server.process is not None
    for pid in children(server.process.pid):
        os.kill(pid, signal.SIGKILL)
    await server.stop()
    await asyncio.sleep(2.0)
    await server.start()


KILLS = {"daemon": kill_daemon, "gateway": kill_gateway, "replica": kill_replica}


def check_versions(load: LiveLoad, allowed: set[str]) -> None:
    assert set(load.versions) <= allowed, f"{set(load.versions) - allowed} answered"


async def test_killed_in_every_phase(tmp_path: Path) -> None:
    async with stack(tmp_path, replicas=2, adapters=2, sections=SECTIONS) as running:
        old, new = running.adapters
        running.remember([*settling(1, old), *a_round(2, new)])
        await running.start("daemon")
        await running.start("gateway")
        report = []
        for phase in PHASES:
            await promote_to(running, phase)
            await healthy(running, phase)
            allowed = {"base", old} | ({new} if phase != "shadow" else set())
            for victim, kill in KILLS.items():
                async with LiveLoad(running.gateway, clients=4, pause_seconds=0.05) as load:
                    await asyncio.sleep(1.0)
                    killed = time.monotonic()
                    await kill(running)
                    back = time.monotonic()
                    await healthy(running, phase)
                    healed = time.monotonic()
                    await asyncio.sleep(1.0)
                check_versions(load, allowed)
                later = [failure for failure in load.failures if failure.began > killed + 0.5]
                # A killed process takes the streams with it that it was serving; nothing later may fail.
                assert not later, (phase, victim, later[:5])
                if victim == "daemon":
                    assert not load.failures, load.failures[:5]
                served = [began for began, _ in load.seconds if killed < began < back]
                assert served or victim == "gateway", f"traffic went on while the {victim} was down"
                report.append((phase, victim, len(load.failures), len(load.seconds), healed - back))
        for phase, victim, failures, answers, seconds in report:
            print(f"{phase:8} {victim:8} {failures} cut, {answers} answers, healed {seconds:.1f} s after its return")
        assert (await running.get("/v1/status"))["incumbent"]["adapter"] == new
