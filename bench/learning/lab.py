"""The product's parts, put together for measurements: one model server for the whole plan, everything else around it.

Server and trainer take turns: nobody asks the server while a training runs.
model → server up → (sample, score, train, serve, ask) → server down
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from bench.learning.lab_settings import ALPHA, MIN_SPREAD, RANK
from bench.learning.plan import COMPLETIONS, STRATEGIES
from bench.learning.tasks.task import Task
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import Sampling, Training
from tao_daemon.domain.adapter import AdapterRecord, Lineage
from tao_daemon.domain.completion import CompletionGroup, ScoredGroup
from tao_daemon.domain.ports import Examples, SamplingAids, TrainingJob
from tao_daemon.domain.prompt import Prompt
from tao_daemon.embedded.model import ensure_model
from tao_daemon.embedded.vllm_server import EmbeddedVllm
from tao_daemon.learning.checkpoints import base_digest
from tao_daemon.learning.subprocess_trainer import SubprocessTrainer
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.rollout.vllm_fleet import VllmFleet
from tao_daemon.sampling.vllm_sampler import VllmSampler
from tao_daemon.scoring.cutoff import settle_cut_off
from tao_daemon.scoring.scorer import ConfiguredScorer

BASE = "base"
_SEATS = 64
"""Sequences that the server computes at once."""
_MAX_FINGERPRINT_ERROR = 0.15
_REQUEST_SECONDS = 1800.0


@dataclass
class Lab:
    """What cells work with. `cache` holds batches, trainings and adapters; nothing there is a result."""

    model_dir: Path
    cache: Path
    server: EmbeddedVllm
    client: VllmClient
    store: DirectoryAdapterStore
    fleet: VllmFleet
    attempts: Any

    @cached_property
    def base_digest(self) -> str:
        """Of all adapters' base: a pass over its weights, once."""
        return base_digest(self.model_dir)

    def sampler(self, task: Task, sampled: str) -> VllmSampler:
        """Plain completions alone, or some of them under the task's strategies: the same number either way."""
        strategies = task.strategies if sampled == STRATEGIES else ()
        plain = COMPLETIONS - sum(strategy.completions for strategy in strategies)
        return self._sampler(task, completions=plain, strategies=strategies, concurrent_prompts=_SEATS // COMPLETIONS)

    def asker(self, task: Task) -> VllmSampler:
        """For single answers."""
        return self._sampler(task, completions=COMPLETIONS, concurrent_prompts=_SEATS)

    def _sampler(self, task: Task, **settings: Any) -> VllmSampler:
        config = Sampling(max_tokens=task.max_tokens, max_waiting_requests=_SEATS, **settings)
        return VllmSampler([self.client], config, base_model=BASE, answer_temperature=0.0, min_spread=MIN_SPREAD)

    def scorer(self, task: Task) -> ConfiguredScorer:
        return ConfiguredScorer(task.scorers, min_spread=MIN_SPREAD)

    async def sample(
        self,
        task: Task,
        sampled: str,
        prompts: Sequence[Prompt],
        adapter: AdapterRecord | None,
        seed: int,
        examples: Examples = lambda prompt: (),
    ) -> list[CompletionGroup]:
        model, aids = adapter.name if adapter else None, SamplingAids(examples)
        sampler = self.sampler(task, sampled)
        return [group async for group in sampler.sample(prompts, model=model, seed=seed, aids=aids)]

    async def score(
        self, task: Task, prompts: Sequence[Prompt], groups: Sequence[CompletionGroup]
    ) -> list[ScoredGroup]:
        """Rewards as a round gives them; groups that a scorer fails on are left out."""
        scorer, by_id = self.scorer(task), {prompt.id: prompt for prompt in prompts}
        scored = []
        for group in groups:
            prompt = by_id[group.prompt_id]
            rewards = await scorer.score(prompt, [completion.text for completion in group.completions])
            known = [reward for reward in rewards if reward is not None]
            if len(known) == len(rewards):
                graded = ScoredGroup(group, tuple(known), scorer.names(prompt))
                scored.append(settle_cut_off(graded, prompt.request, task.max_tokens))
        return scored

    async def train(
        self, groups: Sequence[ScoredGroup], start: AdapterRecord | None, settings: dict[str, Any], seed: int
    ) -> tuple[AdapterRecord, dict[str, float]]:
        """A trained adapter in the store, and what the trainer measured."""
        trainer = self.trainer(settings)
        job = TrainingJob(next(self.attempts), 1, tuple(groups), start, seed)
        result = await trainer.train(job, lambda _: None)
        return self.publish(Path(result.directory), start), dict(result.metrics)

    def trainer(self, settings: dict[str, Any]) -> SubprocessTrainer:
        chosen = {"base_model": self.model_dir, "rank": RANK, "alpha": ALPHA, "min_spread": MIN_SPREAD, **settings}
        return SubprocessTrainer(Training(**chosen), self._attempt)

    def _attempt(self, number: int, attempt: int) -> Path:
        return self.cache / "attempts" / str(number) / f"training-{attempt}"

    def publish(self, artefact: Path, start: AdapterRecord | None) -> AdapterRecord:
        """Through preflight into the store, like any candidate."""
        parent = start.name if start else None
        lineage = Lineage(next(self.attempts), parent, BASE, self.base_digest, (), (), "")
        return self.store.publish(str(artefact), lineage, time.time())

    @asynccontextmanager
    async def serving(self, adapter: AdapterRecord | None) -> AsyncIterator[None]:
        """Loaded under its own name and verified by its fingerprint; gone afterwards."""
        if adapter is None:
            yield
            return
        await self.fleet.serve(adapter)
        try:
            yield
        finally:
            await self.fleet.retire(adapter.name)


@asynccontextmanager
async def lab(cache: Path) -> AsyncIterator[Lab]:
    """With a server that is up."""
    model_dir = await asyncio.to_thread(ensure_model, on_progress=print)
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(cache / "attempts", ignore_errors=True)
    server = EmbeddedVllm(
        model_dir, served_model_name=BASE, log_path=cache / "vllm.log", max_num_seqs=_SEATS, max_cpu_loras=8
    )
    async with server, aiohttp.ClientSession() as session:
        client = VllmClient(server.base_url, api_key=None, session=session, inference_seconds=_REQUEST_SECONDS)
        fleet = VllmFleet([client], base_model=BASE, max_rank=RANK, max_error=_MAX_FINGERPRINT_ERROR, path_maps=())
        store = DirectoryAdapterStore(cache / "adapters", max_rank=RANK)
        first = max((int(name[1:7]) for name in store.names()), default=0) + 1
        yield Lab(model_dir, cache, server, client, store, fleet, count(first))
