"""Planted bad adapters on a real vLLM: each is aborted by itself, and a good one settles.

What is bad about them is planted by a proxy before the server, so that the size of the fault is known. The verdicts,
the canary and the routes are those of a real daemon and a real gateway under live load. Simulated: `bench.rollouts`.

    python -m bench.planted         # some 6 minutes → bench/results/planted.json
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import string
import tempfile
import time
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from bench.faulty_front import Faults
from bench.live_load import LiveLoad
from bench.past import a_round, settling
from bench.publishing import publish
from bench.stack import Stack, stack

PLANTED: dict[str, dict[str, float]] = {
    "as good as the incumbent": {},
    "degenerate: every answer is gibberish": {"gibberish": 1.0},
    "subtly worse: 15 % of the answers are gibberish": {"gibberish": 0.15},
    "erring: 30 % of the requests": {"errors": 0.3},
    "slow: 1.5 s more per answer": {"delay_seconds": 1.5},
}
GOOD = "as good as the incumbent"
CLIENTS = 6
PROMPTS = 900
LIMIT_SECONDS = 240.0
_SECTIONS = {
    "kafka": 'topic = "planted"\nmax_wait_seconds = 0.1',
    "[scorers]": 'name = "answers"\ntype = "python"\ncallable = "bench.planted_scorer:is_an_answer"',
    "rollout": (
        "shadow_pairs = 64\nshadow_pairs_max = 400\ncanary_fractions = [0.2, 0.5]\nstep_seconds = 5.0\n"
        "step_conversations = 30\nbake_seconds = 5.0\nbake_conversations = 60\nevaluate_seconds = 0.5"
    ),
    "serving": "reconcile_seconds = 1.0",
    "sampling": "max_tokens = 12\nlive_slowdown = 0.0",
}


async def measure() -> list[dict[str, Any]]:
    """How the rollout of each planted adapter ended."""
    rows = []
    for name, planted in PLANTED.items():
        with tempfile.TemporaryDirectory(prefix="tao-planted-") as directory:
            faults = Faults(**planted)
            async with stack(
                Path(directory), replicas=1, adapters=2, sections=_SECTIONS, front=faults.front
            ) as running:
                rows.append({"planted": name, **await _roll_out(running, faults)})
    return rows


async def _roll_out(running: Stack, faults: Faults) -> dict[str, Any]:
    old, new = running.adapters
    faults.model = new
    running.remember([*settling(1, old), *a_round(2, new)])
    await asyncio.to_thread(_fill, running)
    # Live traffic comes first: what is slow is told by the minutes before.
    await running.start("daemon")
    await running.start("gateway")
    async with LiveLoad(running.gateway, clients=CLIENTS, max_tokens=12) as load:
        began = time.monotonic()
        status = await running.until(
            lambda s: s["rollout"]["phase"] in ("settled", "aborted", "rolled_back"),
            LIMIT_SECONDS,
            "the rollout to end",
        )
        seconds = time.monotonic() - began
    rollout, evidence = status["rollout"], status["rollout"]["evidence"]
    history = (await running.get("/v1/rollouts"))["rollouts"][0]
    return {
        "ended": rollout["phase"],
        "in": history["steps"][-2]["phase"],
        "reason": rollout["reason"],
        "seconds": round(seconds, 1),
        "shadow_pairs": int(evidence["shadow_pairs"]),
        "candidate_conversations": int(evidence["candidate_conversations"]),
        "candidate_answers": load.versions[new],
        "failed_requests": len(load.failures),
    }


def _fill(running: Stack) -> None:
    producer = KafkaProducer(bootstrap_servers=[running.broker])
    dice = random.Random(7)
    for _ in range(PROMPTS):
        words = ["".join(dice.choices(string.ascii_lowercase, k=dice.randint(3, 9))) for _ in range(8)]
        body = {"messages": [{"role": "user", "content": " ".join(words)}], "max_tokens": 8}
        producer.send("planted", json.dumps(body).encode())
    producer.flush(60)
    producer.close()


def run() -> list[dict[str, Any]]:
    """Measure and publish."""
    # The daemon imports the scorer from here.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    rows = asyncio.run(measure())
    shown = [{key: row[key] for key in ("planted", "ended", "in", "seconds", "shadow_pairs")} for row in rows]
    publish("planted", shown, {"rollouts": rows})
    return rows


if __name__ == "__main__":
    run()
