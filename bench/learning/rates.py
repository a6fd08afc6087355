"""`python -m bench.learning.rates TASK…`: which learning rate suits a first round, and one that goes on from it?

Rounds of the same sampled batches at several rates, each scored by the truth on fresh dev prompts, greedily; never on
the held-out ones. Every training is a line of bench/results/learning/rates.jsonl; what is there is not run again. A
stopped run begins its task anew.

first batch → an adapter per rate; the default's serves → two more batches → an adapter per rate and number of prompts
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning.__main__ import CACHE
from bench.learning.columns import TAO_DEFAULTS
from bench.learning.exploring import best, explored
from bench.learning.heldout import evaluated
from bench.learning.lab import Lab, lab
from bench.learning.plan import PROMPTS
from bench.learning.tasks import TASKS
from bench.learning.tasks.task import Split, Task
from tao_daemon.config import Training
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.ports import Example

RESULTS = Path(__file__).parents[1] / "results" / "learning" / "rates.jsonl"
SEED = 0
FIRST, CONTINUED = Training().learning_rate, Training().continued_learning_rate
FIRST_RATES = (FIRST, 3e-4, CONTINUED)
LATER_RATES = (FIRST, CONTINUED)
TRUTH_PROMPTS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=tuple(TASKS), metavar="TASK", help=", ".join(TASKS))
    asyncio.run(_run(parser.parse_args().tasks))


async def _run(names: Sequence[str]) -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    async with lab(CACHE) as running:
        for name in names:
            if not any(row["task"] == name for row in rows):
                found = await _task(running, TASKS[name])
                with RESULTS.open("a") as file:
                    file.writelines(json.dumps({"task": name, **row}) + "\n" for row in found)


async def _task(running: Lab, task: Task) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    first, shown = await _batch(running, task, 1, None, [])
    base = await _scores(running, task, None)
    start: AdapterRecord | None = None
    for rate in FIRST_RATES:
        adapter, row = await _trained(running, task, first, None, rate, base)
        start = adapter if rate == FIRST else start
        rows.append({"start": "base", **row})
    incumbent = await _scores(running, task, start)
    second, more = await _batch(running, task, 2, start, shown)
    third, _ = await _batch(running, task, 3, start, [*shown, *more])
    both = [*second, *third]
    for groups, settings in ((second, {}), (both, {}), (both, {"groups_per_step": 8})):
        for rate in LATER_RATES:
            _, row = await _trained(running, task, groups, start, rate, incumbent, **settings)
            rows.append({"start": "adapter", **row})
    return rows


async def _batch(
    running: Lab, task: Task, number: int, start: AdapterRecord | None, known: Sequence[Example]
) -> tuple[list[ScoredGroup], list[Example]]:
    """Of the prompts of round `number`; and what later ones may show."""
    first = (number - 1) * PROMPTS
    items = task.items(Split.TRAIN, SEED, PROMPTS, first=first)
    prompts = task.prompts(Split.TRAIN, SEED, items, first=first)
    async with running.serving(start):
        ranked = sorted(known, key=lambda example: example.reward, reverse=True)
        sampled = await explored(running, task, prompts, start, SEED, ranked)
        return await running.score(task, prompts, sampled.groups), await best(running, task, prompts, sampled.groups)


async def _trained(
    running: Lab,
    task: Task,
    groups: Sequence[ScoredGroup],
    start: AdapterRecord | None,
    rate: float,
    before: np.ndarray,
    **settings: Any,
) -> tuple[AdapterRecord, dict[str, Any]]:
    """`before`: the scores of what training starts from."""
    rates = {"learning_rate": rate, "continued_learning_rate": rate}
    adapter, measured = await running.train(groups, start, {**TAO_DEFAULTS, **settings, **rates}, SEED)
    scores = await _scores(running, task, adapter)
    gains = scores - before
    row = {
        "prompts": len(groups),
        "rate": rate,
        "score": round(float(scores.mean()), 4),
        "gain": round(float(gains.mean()), 4),
        "standard_error": round(float(gains.std(ddof=1) / len(gains) ** 0.5), 4),
        "truth_prompts": len(gains),
        **settings,
        **{name: measured[name] for name in ("kl", "change", "steps", "steps_kept")},
    }
    print(task.name, row, flush=True)
    return adapter, row


async def _scores(running: Lab, task: Task, adapter: AdapterRecord | None) -> np.ndarray:
    """By the truth, on dev prompts that choose nothing else."""
    async with running.serving(adapter):
        found = await evaluated(running, task, Split.DEV, 5000 + SEED, TRUTH_PROMPTS, adapter)
    return np.asarray(found["scores"], dtype=float)


if __name__ == "__main__":
    main()
