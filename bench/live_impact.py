"""What live clients notice of a round that samples on their server: latency without, with pacing, and unpaced.

One vLLM with SmolLM2-135M-Instruct; clients ask through a real gateway, a real daemon samples for a real round. The
bound is `sampling.live_slowdown` times the 99th percentile before sampling began.

    python -m bench.live_impact     # some 12 minutes → bench/results/live_impact.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaProducer

from bench.live_load import LiveLoad
from bench.publishing import publish
from bench.stack import Stack, stack
from tao_daemon.embedded.model import ensure_model
from tao_daemon.embedded.traffic import ANSWER_SCHEMA, tickets

SLOWDOWN = 2.0
CLIENTS = 3
PROMPTS = 400


async def measure(seconds: float) -> dict[str, Any]:
    """Two runs of two windows of `seconds` each: quiet, then with sampling."""
    model = await asyncio.to_thread(ensure_model)
    found: dict[str, Any] = {}
    for name, slowdown in (("paced", SLOWDOWN), ("unpaced", 0.0)):
        with tempfile.TemporaryDirectory(prefix="tao-live-") as directory:
            root = Path(directory)
            (root / "schema.json").write_text(json.dumps(ANSWER_SCHEMA))
            sections = {
                "kafka": 'topic = "tickets"',
                "round": f"prompts = {PROMPTS // 2}",
                "sampling": f"live_slowdown = {slowdown}\nmax_tokens = 48\nconcurrent_prompts = 8",
                "training": "min_groups = 1",
                "[scorers]": f'name = "form"\ntype = "json_schema"\nschema_file = "{root / "schema.json"}"',
            }
            async with stack(root, replicas=1, adapters=0, sections=sections, model=model) as running:
                windows = await _windows(running, seconds)
                found |= {f"quiet before {name}": windows["quiet"], name: windows["sampling"]}
    kinds = ("paced", "unpaced")
    return {
        "bound": SLOWDOWN,
        "p99_ratio": {kind: round(found[kind]["p99"] / found[f"quiet before {kind}"]["p99"], 3) for kind in kinds},
        "windows": found,
        "clients": CLIENTS,
        "seconds": seconds,
    }


async def _windows(running: Stack, seconds: float) -> dict[str, Any]:
    await asyncio.to_thread(_fill, running)
    await running.start("daemon")
    await running.start("gateway")
    async with LiveLoad(running.gateway, clients=CLIENTS, max_tokens=24, pause_seconds=0.5) as load:
        await asyncio.sleep(10.0)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        quiet = _window(load, began)
        await running.post("/v1/rounds", reason="bench")
        await running.until(lambda s: s["round"] and s["round"]["phase"] == "sampling", 60, "sampling")
        began = time.monotonic()
        await asyncio.sleep(seconds)
        status = await running.get("/v1/status")
        busy = _window(load, began)
        sampled = status["round"]["done"] if status["round"] and status["round"]["phase"] == "sampling" else None
        return {"quiet": quiet, "sampling": {**busy, "prompts_sampled": sampled}}


def _window(load: LiveLoad, began: float) -> dict[str, float]:
    took = [seconds for at, seconds in load.seconds if at >= began]
    quantiles = {
        name: round(float(np.quantile(took, q)), 4) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    return {"requests": len(took), **quantiles}


def _fill(running: Stack) -> None:
    producer = KafkaProducer(bootstrap_servers=[running.broker])
    for ticket in islice(tickets(0), PROMPTS):
        producer.send("tickets", json.dumps(ticket.request).encode())
    producer.flush(60)
    producer.close()


def run(seconds: float) -> dict[str, Any]:
    summary = asyncio.run(measure(seconds))
    columns = ("requests", "p50", "p95", "p99")
    rows = [{"window": name, **{key: row[key] for key in columns}} for name, row in summary["windows"].items()]
    publish("live_impact", rows, summary)
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="Length of each window.")
    run(parser.parse_args().seconds)
