"""Sampling with strategies when there is no earlier round to take examples from: a few prompts go first.

The first prompts of a first round are shown no example, as in the daemon; the rest may be shown the best of what these
gave, by the reward and never by the truth. All completions train, those of the first prompts too.

first prompts, without examples → scored → the others, some of their completions with examples → all groups
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.learning.batches import Batch, batch
from bench.learning.lab import Lab
from bench.learning.plan import FIRST_PROMPTS, STRATEGIES
from bench.learning.tasks.task import Task
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.completion import CompletionGroup
from tao_daemon.domain.ports import Example
from tao_daemon.domain.prompt import Prompt

MIN_REWARD = 0.5
"""A worse completion is no example, as in the daemon."""


async def explored(
    lab: Lab,
    task: Task,
    prompts: Sequence[Prompt],
    adapter: AdapterRecord | None,
    seed: int,
    known: Sequence[Example],
) -> Batch:
    """`known` are the examples of earlier rounds, the best first."""
    if known:
        return await batch(lab, task, STRATEGIES, prompts, adapter, seed, examples=known)
    first = await batch(lab, task, STRATEGIES, prompts[:FIRST_PROMPTS], adapter, seed)
    found = await best(lab, task, prompts, first.groups)
    rest = await batch(lab, task, STRATEGIES, prompts[FIRST_PROMPTS:], adapter, seed, examples=found)
    return Batch((*first.groups, *rest.groups), first.seconds + rest.seconds)


async def best(lab: Lab, task: Task, prompts: Sequence[Prompt], groups: Sequence[CompletionGroup]) -> list[Example]:
    """The best completion of each prompt, if it is good enough, the best first."""
    scorer, by_id, found = lab.scorer(task), {prompt.id: prompt for prompt in prompts}, []
    for group in groups:
        prompt = by_id[group.prompt_id]
        whole = [completion.text for completion in group.completions if completion.finish_reason == "stop"]
        scores = await scorer.absolute(prompt, whole) if whole else []
        ranked = sorted(
            ((score, text) for score, text in zip(scores, whole, strict=True) if score is not None), reverse=True
        )
        if ranked and ranked[0][0] >= MIN_REWARD:
            found.append(Example(prompt.id, prompt.request, ranked[0][1], ranked[0][0]))
    return sorted(found, key=lambda example: example.reward, reverse=True)
