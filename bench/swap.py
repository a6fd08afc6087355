"""Swaps and undos of a live model on two replicas, under streaming load, quiet and beside a backlog and a round.

A swap: `undo --to` an adapter that is not loaded, so load on both replicas, verify on both, flip. An undo: back to the
base model. Both end when every gateway process has adopted the routes; until then some request may get the old version.

    python -m bench.swap            # 100 swaps, 100 undos → bench/results/swap.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaProducer

from bench.live_load import LiveLoad
from bench.past import settling
from bench.publishing import publish
from bench.stack import Stack, stack

SWAPS = 100
CLIENTS = 6
BACKLOG = 20_000
_SECTIONS = {
    "kafka": 'topic = "backlog"\nmax_batch_records = 500',
    "scorers": "",
    "gateway": "processes = 2",
    "serving": "reconcile_seconds = 1.0",
    "sampling": "max_tokens = 16",
    "training": "",
}


@dataclass
class Seconds:
    swaps: list[float] = field(default_factory=list)
    undos: list[float] = field(default_factory=list)


async def measure(root: Path, swaps: int) -> dict[str, Any]:
    """The summary of swap.json; half of the swaps in quiet, half beside a backlog and a round."""
    sections = {name: lines for name, lines in _SECTIONS.items() if lines}
    async with stack(root, replicas=2, adapters=2, sections=sections) as running:
        running.remember([*settling(1, running.adapters[0]), *settling(2, running.adapters[1])])
        await running.start("daemon")
        await running.start("gateway")
        await running.until(lambda s: s["fleet"]["gateways"] == 2 and not s["fleet"]["unready"], 60, "both gateways")
        await running.post("/v1/rollout/undo", to="base", reason="begin")
        quiet, busy = Seconds(), Seconds()
        async with LiveLoad(running.gateway, clients=CLIENTS) as load:
            for number in range(swaps):
                beside = number >= swaps // 2
                if number == swaps // 2:
                    await asyncio.to_thread(_fill, running)
                if beside and number % 5 == 0:
                    await running.post("/v1/rounds", reason="beside a swap")
                await _once(running, running.adapters[number % 2], busy if beside else quiet)
            rounds = len((await running.get("/v1/rounds"))["rounds"])
            buffered = (await running.get("/v1/status"))["buffer"]
        return _summary(load, quiet, busy, rounds, buffered)


async def _once(running: Stack, adapter: str, seconds: Seconds) -> None:
    began = time.monotonic()
    await running.post("/v1/rollout/undo", to=adapter, reason="swap")
    await _adopted(running, adapter)
    seconds.swaps.append(time.monotonic() - began)
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await running.post("/v1/rollout/undo", reason="undo")
    await _adopted(running, None)
    seconds.undos.append(time.monotonic() - began)
    await asyncio.sleep(0.5)


async def _adopted(running: Stack, adapter: str | None) -> None:
    """Return when the routes name the adapter and every gateway process uses them."""
    routes = await running.until(lambda r: r["adapter"] == adapter, 60, f"{adapter} to serve", path="/v1/routes")
    generation = routes["generation"]
    await running.until(
        lambda found: all(each["generation"] >= generation for each in found["gateways"]),
        30,
        "the gateways to adopt it",
        path="/v1/gateways",
    )


def _fill(running: Stack) -> None:
    producer = KafkaProducer(bootstrap_servers=[running.broker], linger_ms=20)
    for number in range(BACKLOG):
        text = f"{number:x} " * 40
        body = {"messages": [{"role": "user", "content": text}], "response_format": {"type": "json_object"}}
        producer.send("backlog", json.dumps(body).encode())
    producer.flush(60)
    producer.close()


def _summary(load: LiveLoad, quiet: Seconds, busy: Seconds, rounds: int, buffered: Any) -> dict[str, Any]:
    swaps, undos = quiet.swaps + busy.swaps, quiet.undos + busy.undos
    return {
        "swaps": len(swaps),
        "undos": len(undos),
        "requests": load.requests,
        "streams": load.streams,
        "failed_requests": len(load.failures),
        "failures": [f"{failure.what} (streamed: {failure.streamed})" for failure in load.failures[:10]],
        "versions": dict(load.versions),
        "swap_seconds": _quantiles(swaps),
        "undo_seconds": _quantiles(undos),
        "quiet": {"swap_seconds": _quantiles(quiet.swaps), "undo_seconds": _quantiles(quiet.undos)},
        "beside_backlog_and_rounds": {
            "swap_seconds": _quantiles(busy.swaps),
            "undo_seconds": _quantiles(busy.undos),
            "rounds_started": rounds,
            "prompts_buffered": sum(buffered[name] for name in ("train", "held_out", "excluded")) if buffered else None,
        },
        "replicas": 2,
        "gateway_processes": 2,
        "clients": CLIENTS,
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {name: round(float(np.quantile(values, q)), 4) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def run(swaps: int = SWAPS) -> dict[str, Any]:
    """Measure and publish."""
    directory = Path(tempfile.mkdtemp(prefix="tao-swap-"))
    summary = asyncio.run(measure(directory, swaps))
    if summary["failed_requests"]:
        print(f"logs of the servers: {directory}")
    else:
        shutil.rmtree(directory)
    rows = [{"what": name, **summary[name]} for name in ("swap_seconds", "undo_seconds")]
    publish("swap", rows, summary)
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=SWAPS)
    run(parser.parse_args().swaps)
