"""The daemon's own gate between a candidate and what serves: by the task's scorers, never by the truth."""

from __future__ import annotations

from typing import Any

from bench.learning.lab import Lab
from bench.learning.plan import GATE
from bench.learning.tasks.task import Split, Task
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.report import Decision
from tao_daemon.evaluation.evaluator import Evaluator


async def judged(
    lab: Lab, task: Task, seed: int, number: int, incumbent: AdapterRecord | None, candidate: AdapterRecord
) -> tuple[bool, dict[str, Any]]:
    """Whether the candidate of round `number` passes, on prompts of the dev pools that are its own; and the figures."""
    fresh = 1000 * seed + number
    prompts = task.prompts(Split.DEV, fresh, task.items(Split.DEV, fresh, GATE.prompts))
    evaluator = Evaluator(lab.asker(task), lab.scorer(task), GATE)
    async with lab.serving(incumbent), lab.serving(candidate):
        found = await evaluator.evaluate(
            prompts,
            incumbent=incumbent.name if incumbent else None,
            candidate=candidate.name,
            seed=seed,
            distance={},
            progress=lambda done, of: None,
        )
    verdict = found.verdict
    names = ("difference", "difference_low", "difference_high")
    figures = {f"gate_{name}": verdict.numbers[name] for name in names if name in verdict.numbers}
    return verdict.decision is Decision.PASS, {"verdict": verdict.decision.value, "why": verdict.summary, **figures}
