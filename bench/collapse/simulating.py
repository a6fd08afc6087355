"""Every scenario with several seeds, and what it came to.

scenarios × seeds → courses → bench/results/collapse/simulation.json
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import torch

from bench.collapse.kinds import quality
from bench.collapse.rows import notices
from bench.collapse.scenarios import scenarios
from bench.collapse.simulation import Course, Scenario, Simulation
from tao_daemon.clients.storage import atomic_write_json
from tao_daemon.scoring.decoys import MASTER_KEYS
from tests.judge_server import JudgeServer

SEEDS = (1, 2, 3)


async def run(path: Path) -> None:
    logging.getLogger("tao_daemon").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    server = JudgeServer(quality, place_bias=0.1, fooled_by=frozenset(MASTER_KEYS))
    found = []
    async with server.serving(), aiohttp.ClientSession() as session:
        for scenario in scenarios(server.url).values():
            for seed in SEEDS:
                found.append(await _course(scenario, seed, session))
                print(f"{scenario.name}, seed {seed}: truth {found[-1]['truth'][-1]:.2f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, found)


async def _course(scenario: Scenario, seed: int, session: aiohttp.ClientSession) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tao-collapse-") as directory:
        simulation = Simulation(scenario, seed, Path(directory), session)
        try:
            course = await simulation.run()
        finally:
            await simulation.close()
    return {"scenario": scenario.name, "seed": seed, **_figures(course), "seconds": round(time.monotonic() - began, 1)}


def _figures(course: Course) -> dict[str, Any]:
    base, rows = course.base, course.rows
    return {
        "truth": [base.truth, *(row.truth for row in rows)],
        "tokens": [base.tokens, *(row.tokens for row in rows)],
        "entropy": [base.entropy, *(row.entropy for row in rows)],
        "reward": [row.reward for row in rows],
        "outcomes": [row.outcome for row in rows],
        "noticed": {notice.by: notice.round for notice in notices(rows)},
        "unchanged": course.serving.same(base),
    }
