"""Sampler and trainer as the round knows them, around the simulated model.

The trainer goes the product's whole way but for loading and saving weights: job folder, dev split, selection, π₀,
checks, steps, looks, budget.

tables by name → (sample, answer | train → a new table under a new name)
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

from bench.collapse.kinds import KINDS, MAX_TOKENS, text
from bench.collapse.table import K, Speaker, Table
from tao_daemon.config import Training
from tao_daemon.domain.completion import PLAIN, Answer, Completion, CompletionGroup
from tao_daemon.domain.ports import SamplingAids, TrainingJob
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import TrainingSignal
from tao_daemon.learning.course import Course
from tao_daemon.learning.dev_objective import DevSet
from tao_daemon.learning.job import read_job
from tao_daemon.learning.job_folders import spec_of, write_job
from tao_daemon.learning.kl_meter import KlMeter
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.optimisation import Company, optimise
from tao_daemon.learning.parallel import Alone
from tao_daemon.learning.reference import check_reference, counted, reference

BASE = "base"


class TableSampler:
    """Implements `Sampler`: completions and answers alike are drawn at temperature 1."""

    def __init__(self, tables: dict[str, Table], completions: int) -> None:
        self._tables = tables
        self._completions = completions
        self._speakers: dict[str, Speaker] = {}

    async def sample(
        self, prompts: Sequence[Prompt], *, model: str | None, seed: int, aids: SamplingAids | None = None
    ) -> AsyncIterator[CompletionGroup]:
        for prompt in prompts:
            yield self._group(prompt, model, seed, self._completions)

    async def draw(self, prompts: Sequence[Prompt], *, model: str | None, seed: int) -> Sequence[CompletionGroup]:
        return [self._group(prompt, model, seed, 1) for prompt in prompts]

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        groups = await self.draw(prompts, model=model, seed=-1)
        return [
            Answer(said.text, len(said.token_ids), said.finish_reason) for group in groups for said in group.completions
        ]

    def _group(self, prompt: Prompt, model: str | None, seed: int, completions: int) -> CompletionGroup:
        name = model or BASE
        if name not in self._speakers:
            self._speakers[name] = self._tables[name].speaker()
        speaker = self._speakers[name]
        rng = random.Random(f"{seed}/{model}/{prompt.id}")
        said = tuple(_completion(prompt, index, *speaker.draw(rng)) for index in range(completions))
        return CompletionGroup(prompt.id, (prompt.source.offset, *map(ord, prompt.user_text)), said)


def _completion(prompt: Prompt, index: int, token_ids: tuple[int, ...], logprobs: tuple[float, ...]) -> Completion:
    kind = KINDS[token_ids[0]]
    words = text(prompt.request, kind, [token - K for token in token_ids[1:]])
    finish = "length" if len(token_ids) >= MAX_TOKENS else "stop"
    return Completion(index, PLAIN, words, token_ids, logprobs, finish)


class TableTrainer:
    """Trains tables. Raises TrainingError as the product's trainer does."""

    def __init__(self, tables: dict[str, Table], settings: Training, root: Path) -> None:
        self._tables = tables
        base = root / "base"
        base.mkdir(parents=True)
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").write_bytes(b"")
        self._settings = settings.model_copy(update={"base_model": base})
        self._root = root
        self._numbers = count(1)

    def train(
        self, job: TrainingJob, start: str, progress: Callable[[TrainingSignal], None]
    ) -> tuple[str, dict[str, float]]:
        """The new table's name, and what training measured."""
        directory = self._root / f"training-{next(self._numbers)}"
        write_job(directory, spec_of(job, self._settings), job)
        read = read_job(directory)
        table = self._tables[start].copy()
        policy: Any = cast(Any, table)
        groups = reference(policy, read.selection, read.spec)
        ranks = Alone()
        dev = DevSet(policy, read.dev, ranks, read.spec.micro_batch_tokens) if read.dev else None
        meter = KlMeter(policy, read.selection.groups, read.spec)
        check_reference(groups, meter.mismatch, read.spec.max_mismatch)
        learner = Learner(policy, read.selection.objective, read.spec, ranks)
        outcome = optimise(learner, groups, read.spec, Company(meter, dev, None, progress), Course())
        name = f"r{job.round:02}"
        self._tables[name] = table
        return name, {
            **counted(groups),
            "mismatch": meter.mismatch,
            **outcome.course.metrics(),
            "stopped_on_kl": float(outcome.over_budget),
        }
