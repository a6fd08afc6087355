"""What an adapter does on prompts that nobody trained on: truth, reward, length, distance from the base model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.learning.lab import Lab
from bench.learning.plan import DRIFT_PROMPTS
from bench.learning.tasks.task import Split, Task
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.ports import DivergenceJob
from tao_daemon.evaluation.statistics import bootstrap_mean

CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 0


async def evaluated(
    lab: Lab, task: Task, split: Split, seed: int, count: int, adapter: AdapterRecord | None
) -> dict[str, Any]:
    """Greedy answers, as a client gets them, of an adapter that is served. `scores` are in the order of the items."""
    items = task.items(split, seed, count)
    prompts = task.prompts(split, seed, items)
    began = time.monotonic()
    answers = await lab.asker(task).answer(prompts, model=adapter.name if adapter else None)
    seconds = time.monotonic() - began
    if any(answer.is_none for answer in answers):
        raise RuntimeError(f"the server did not answer prompts of task {task.name}; see {lab.cache / 'vllm.log'}")
    scores = [task.truth(item, answer.text) for item, answer in zip(items, answers, strict=True)]
    scorer = lab.scorer(task)
    rewards = [
        (await scorer.absolute(prompt, [answer.text]))[0] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    known = [reward for reward in rewards if reward is not None]
    return {
        "split": split.name.lower(),
        "prompts": count,
        **interval("score", scores, (0.0, 1.0)),
        "exact": statistics.fmean(score == 1.0 for score in scores),
        "reward": statistics.fmean(known) if known else None,
        "mean_tokens": statistics.fmean(answer.completion_tokens for answer in answers),
        "cut_off": statistics.fmean(answer.finish_reason == "length" for answer in answers),
        "seconds": seconds,
        "scores": scores,
    }


def interval(name: str, values: Sequence[float], support: tuple[float, float]) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval (percentile)."""
    found = bootstrap_mean(values, support=support, confidence=CONFIDENCE, resamples=RESAMPLES, seed=SEED)
    return {name: found.mean, f"{name}_low": found.percentile.low, f"{name}_high": found.percentile.high}


async def divergence(lab: Lab, task: Task, seed: int, adapter: AdapterRecord) -> dict[str, float] | None:
    """KL to the base model on sampled answers, nats per answer; None where the trainer cannot measure it.

    The adapter is served for the sampling alone: measuring runs while nobody asks the server.
    """
    trainer = lab.trainer({})
    if not hasattr(trainer, "measure"):
        return None
    items = task.items(Split.HELD_OUT, seed, DRIFT_PROMPTS)
    prompts = task.prompts(Split.HELD_OUT, seed, items)
    async with lab.serving(adapter):
        groups = await lab.asker(task).draw(prompts, model=adapter.name, seed=SEED)
    found = await trainer.measure(DivergenceJob(next(lab.attempts), 1, tuple(groups), adapter, None))
    return asdict(found)
