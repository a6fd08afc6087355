"""Batches of completions: sampled once, kept in the cache, and read again by every cell that trains on the same ones.

asked for → in the cache? → read | sampled, timed and written atomically
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.learning.lab import Lab
from bench.learning.plan import STRATEGIES
from bench.learning.tasks.task import Task
from tao_daemon.clients.storage import atomic_write_json
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.completion import Completion, CompletionGroup
from tao_daemon.domain.ports import Example
from tao_daemon.domain.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Batch:
    groups: tuple[CompletionGroup, ...]
    seconds: float
    """What sampling took, when it was sampled."""

    @property
    def completions(self) -> int:
        return sum(len(group.completions) for group in self.groups)


async def batch(
    lab: Lab,
    task: Task,
    sampled: str,
    prompts: Sequence[Prompt],
    adapter: AdapterRecord | None,
    seed: int,
    examples: Sequence[Example] = (),
) -> Batch:
    """Completions of the prompts by the adapter, which must be served, under the task's present configuration."""
    model = adapter.name if adapter else "base"
    strategies = [strategy.model_dump(mode="json") for strategy in task.strategies] if sampled == STRATEGIES else []
    shown = [(example.prompt_id, example.text) for example in examples]
    asked = json.dumps([[prompt.request for prompt in prompts], strategies, shown, task.max_tokens], sort_keys=True)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    path = lab.cache / "batches" / f"{task.name}-{sampled}-{model}-s{seed}-{digest}.json"
    if path.is_file():
        return _decoded(json.loads(path.read_text()))
    began = time.monotonic()
    groups = await lab.sample(task, sampled, prompts, adapter, seed, lambda prompt: examples)
    found = Batch(tuple(groups), time.monotonic() - began)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, {"seconds": found.seconds, "groups": [asdict(group) for group in found.groups]})
    return found


def _decoded(data: Mapping[str, Any]) -> Batch:
    return Batch(tuple(_group(group) for group in data["groups"]), float(data["seconds"]))


def _group(data: Mapping[str, Any]) -> CompletionGroup:
    completions = tuple(_completion(each) for each in data["completions"])
    group = CompletionGroup(data["prompt_id"], tuple(data["prompt_token_ids"]), completions)
    return replace(group, examples=tuple(data["examples"])) if data.get("examples") else group


def _completion(data: Mapping[str, Any]) -> Completion:
    tuples = {"token_ids": tuple(data["token_ids"]), "logprobs": tuple(data["logprobs"])}
    return Completion(**{**data, **tuples})
