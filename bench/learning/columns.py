"""How each column makes its adapters, round by round; what a round cost and what came of it.

round: sample → score → train → (gate) → serve → ask the held-out prompts → (next round starts from what serves)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.learning.batches import batch
from bench.learning.exploring import best, explored
from bench.learning.gate import judged
from bench.learning.heldout import evaluated
from bench.learning.lab import Lab
from bench.learning.plan import DEV_PROMPTS, HELD_OUT_PROMPTS, PLAIN, PROMPTS, STRATEGIES, Cell
from bench.learning.tasks import TASKS
from bench.learning.tasks.task import Split, Task
from tao_daemon.config.rounds import Round as RoundConfig
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import AdapterError
from tao_daemon.domain.ports import Example

TAO_DEFAULTS: dict[str, Any] = {"groups_per_step": 4}
"""Half as many groups per step for half as many prompts per round as the product's defaults: as many steps per round.
All else is the product's default, but for what a setting names."""
CARRIED_ROUNDS = RoundConfig().carried_rounds
LABELLED_RATES = (2e-4, 5e-4, 1e-3)
_CHILD_SECONDS = 3600.0
_CHILD_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
"""As our own trainer has it: threads that spin while others want the cores would make the baselines crawl."""


@dataclass
class Round:
    """What serves after a round, None for the base model, and the round's costs."""

    adapter: AdapterRecord | None
    completions: int = 0
    sampling_seconds: float = 0.0
    scoring_seconds: float = 0.0
    training_seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Course:
    """What rounds hand on to the next."""

    adapter: AdapterRecord | None = None
    examples: list[Example] = field(default_factory=list)
    """What few-shot strategies may show, the best first."""
    refused: list[list[ScoredGroup]] = field(default_factory=list)
    """Groups of the rounds that the gate refused since `adapter` came, the latest last."""
    rate: float | None = None
    """The learning rate that labelled fine-tuning chose in its first round."""


async def run(lab: Lab, cell: Cell) -> dict[str, Any]:
    """The content of the cell's file: every round with its score on the held-out prompts."""
    task, rounds, course = TASKS[cell.task], [], Course()
    began = time.monotonic()
    for number in range(1, max(cell.rounds, 1) + 1):
        made = await _made(lab, cell, task, number, course)
        adapter = course.adapter = made.adapter
        name = adapter.name if adapter else None
        if rounds and rounds[-1]["adapter"] == name:
            held_out, dev = rounds[-1]["held_out"], rounds[-1]["dev"]
        else:
            async with lab.serving(adapter):
                held_out = await evaluated(lab, task, Split.HELD_OUT, cell.seed, HELD_OUT_PROMPTS, adapter)
                dev = await evaluated(lab, task, Split.DEV, cell.seed, DEV_PROMPTS, adapter)
        rounds.append({
            "round": number if cell.rounds else 0,
            "adapter": name,
            "completions": made.completions,
            "sampling_seconds": made.sampling_seconds,
            "scoring_seconds": made.scoring_seconds,
            "training_seconds": made.training_seconds,
            "details": made.details,
            "held_out": held_out,
            "dev": {name: value for name, value in dev.items() if name != "scores"},
            "divergence": None,
        })  # fmt: skip
    return {"rounds": rounds, "seconds": time.monotonic() - began}


async def _made(lab: Lab, cell: Cell, task: Task, number: int, course: Course) -> Round:
    match cell.column:
        case "base":
            return Round(None)
        case "labelled":
            return await _labelled(lab, cell, task, number, course)
        case "trl_grpo":
            return await _trl(lab, cell, task, number, course.adapter)
        case _:
            return await _tao(lab, cell, task, number, course)


async def _tao(lab: Lab, cell: Cell, task: Task, number: int, course: Course) -> Round:
    first, start = (number - 1) * cell.prompts, course.adapter
    items = task.items(Split.TRAIN, cell.seed, cell.prompts, first=first)
    prompts = task.prompts(Split.TRAIN, cell.seed, items, first=first)
    async with lab.serving(start):
        if cell.sampled == STRATEGIES:
            sampled = await explored(lab, task, prompts, start, cell.seed, course.examples)
            shown = [*course.examples, *await best(lab, task, prompts, sampled.groups)]
            course.examples = sorted(shown, key=lambda example: example.reward, reverse=True)
        else:
            sampled = await batch(lab, task, PLAIN, prompts, start, cell.seed)
    began = time.monotonic()
    scored = await lab.score(task, prompts, sampled.groups)
    scoring = time.monotonic() - began
    began = time.monotonic()
    carried = [group for groups in course.refused[-CARRIED_ROUNDS:] for group in groups] if CARRIED_ROUNDS else []
    adapter, metrics = await lab.train([*scored, *carried], start, _training(cell), cell.seed)
    rewards = [reward for group in scored for reward in group.rewards]
    details = {
        "reward": sum(rewards) / len(rewards),
        "reward_by_strategy": _by_strategy(scored),
        "carried": len(carried),
        "groups_with_spread": sum(group.spread >= 0.05 for group in scored) / len(scored),
        **{f"trainer_{name}": value for name, value in metrics.items()},
    }
    training = time.monotonic() - began
    serves: AdapterRecord | None = adapter
    if cell.gated:
        passed, verdict = await judged(lab, task, cell.seed, number, start, adapter)
        serves, details = adapter if passed else start, {**details, **verdict}
        course.refused = [] if passed else [*course.refused, scored]
    return Round(serves, sampled.completions, sampled.seconds, scoring, training, details)


def _training(cell: Cell) -> dict[str, Any]:
    """The trainer's settings that are not the product's defaults, which are for rounds of 64 prompts."""
    settings = {name: value for name, value in cell.settings.items() if name != "prompts"}
    return {**(TAO_DEFAULTS if cell.prompts == PROMPTS else {}), **settings, "algorithm": cell.algorithm}


def _by_strategy(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Mean reward of the completions of each strategy."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for group in scored:
        for completion, reward in zip(group.group.completions, group.rewards, strict=True):
            found[completion.strategy].append(reward)
    return {name: sum(rewards) / len(rewards) for name, rewards in found.items()}


async def _trl(lab: Lab, cell: Cell, task: Task, number: int, start: AdapterRecord | None) -> Round:
    place = {"first": (number - 1) * PROMPTS, "count": PROMPTS}
    out, result, _ = await _child(lab, "trl_grpo", cell, task, place, start, dict(cell.settings))
    adapter = lab.publish(out / "artefact", start)
    seconds = {name: result[f"{name}_seconds"] for name in ("sampling", "scoring", "training")}
    return Round(
        adapter,
        result["completions"],
        seconds["sampling"],
        seconds["scoring"],
        seconds["training"],
        {"rewards": result["rewards"], "steps": result["steps"], "tokens": result["tokens"]},
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """One setting of labelled fine-tuning, and its score on the dev split."""

    rate: float
    epochs: int
    adapter: AdapterRecord
    training_seconds: float
    dev_score: float


async def _labelled(lab: Lab, cell: Cell, task: Task, number: int, course: Course) -> Round:
    """From the base model, on the prompts of all rounds so far. The dev split chooses epochs; in round 1, rate too."""
    labels = int(cell.settings.get("labels", number * PROMPTS))
    place = {"first": 0, "count": labels}
    trials, refused = list[_Trial](), list[dict[str, float]]()
    for rate in (course.rate,) if course.rate else LABELLED_RATES:
        out, result, _ = await _child(lab, "labelled", cell, task, place, None, {"learning_rate": rate})
        for artefact in sorted(out.glob("epoch-*"), key=lambda path: int(path.name[6:])):
            adapter, epochs = lab.publish(artefact, None), artefact.name[6:]
            try:
                async with lab.serving(adapter):
                    dev = await evaluated(lab, task, Split.DEV, cell.seed, DEV_PROMPTS, adapter)
            except AdapterError:  # so far from the base that server and trainer differ on it: nobody could serve it
                refused.append({"learning_rate": rate, "epochs": int(epochs)})
                lab.store.delete(adapter.name)
                continue
            trials.append(_Trial(rate, int(epochs), adapter, result["seconds"][epochs], dev["score"]))
    if not trials:
        raise AdapterError(f"the server refused every one of the {len(refused)} labelled adapters")
    chosen = max(trials, key=lambda trial: trial.dev_score)
    course.rate = chosen.rate
    for trial in trials:
        if trial is not chosen:
            lab.store.delete(trial.adapter.name)
    details = {
        "labels": labels,
        "learning_rate": chosen.rate,
        "epochs": chosen.epochs,
        "tried": [{"learning_rate": t.rate, "epochs": t.epochs, "dev_score": t.dev_score} for t in trials],
        "refused": refused,
    }
    return Round(chosen.adapter, 0, 0.0, 0.0, chosen.training_seconds, details)


async def _child(
    lab: Lab,
    module: str,
    cell: Cell,
    task: Task,
    place: dict[str, int],
    start: AdapterRecord | None,
    settings: dict[str, float],
) -> tuple[Path, dict[str, Any], float]:
    """Run a baseline's trainer to its end; where it wrote, what it measured, and its seconds in all."""
    out = lab.cache / "attempts" / f"{module}-{next(lab.attempts)}"
    out.mkdir(parents=True)
    spec = {
        "model_dir": str(lab.model_dir),
        "start": str(start.path) if start else None,
        "out": str(out),
        "task": task.name,
        "task_seed": cell.seed,
        "seed": cell.seed,
        "settings": settings,
        **place,
    }
    (out / "spec.json").write_text(json.dumps(spec, indent=2))
    began = time.monotonic()
    with (out / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"bench.learning.{module}",
            str(out / "spec.json"),
            stdout=log,
            stderr=log,
            env={**os.environ, **_CHILD_ENVIRONMENT},
        )
    try:
        async with asyncio.timeout(_CHILD_SECONDS):
            status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if status:
        raise RuntimeError(f"{module} ended with status {status}; see {out / 'log'}")
    return out, json.loads((out / "result.json").read_text()), time.monotonic() - began
