"""Rounds in a row on the real model, rewarded by nothing but noise.

Pure noise is the harder test: with a verifier that is only sometimes wrong, what is right in it pulls back every round.
Here nothing does; all that a round can do is drift, and the gate has to refuse twenty candidates of no worth, or worse.
One line keeps what passes the gate; the other keeps everything, for contrast.

what serves → sample → noise → train → how far → gate on fresh prompts → what serves; a JSON line per round
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.collapse.rows import Accept, Row, against, outcome
from bench.collapse.scenarios import python
from bench.learning.lab import BASE, Lab
from bench.learning.lab_settings import MIN_SPREAD
from bench.learning.tasks import TASKS
from bench.learning.tasks.task import Split
from tao_daemon.config import Gate, Sampling
from tao_daemon.daemon.grading import grade
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.completion import CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.meters import measure
from tao_daemon.domain.ports import DivergenceJob, SamplingAids
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.report import Decision
from tao_daemon.evaluation.distance import distance
from tao_daemon.evaluation.evaluator import Evaluator
from tao_daemon.sampling.vllm_sampler import VllmSampler
from tao_daemon.scoring.scorer import ConfiguredScorer

TASK = TASKS["formatting"]
"""Its base score is neither low nor high: there is room to fall."""
SEED = 7
PROMPTS, HELD_OUT, DRIFT = 10, 48, 16
"""Per round: training prompts, and of the gate's those on which the divergence is measured. HELD_OUT: the same in every
round, for the score that is reported."""
SAMPLING = Sampling(completions=6, max_tokens=32, concurrent_prompts=PROMPTS, max_waiting_requests=64)
"""Shorter than what clients ask for: completions that are cut off are left out, and do not earn 0 for it."""
TRAINING = {"learning_rate": 1e-3, "continued_learning_rate": 1e-3, "groups_per_step": 4, "epochs": 2}
"""Twice the default rate, so that noise has it easier; 6 steps a round."""
GATE = Gate(prompts=32, min_prompts=32, min_differing_pairs=5)
"""Smaller than anybody should use: chance has it easier."""


@dataclass(frozen=True, slots=True)
class Line:
    """Rounds in a row."""

    name: str
    rounds: int
    accept: Accept


GATED, OPEN = Line("gate", 20, Accept.PASSED), Line("no_gate", 12, Accept.ALL)


@dataclass(frozen=True, slots=True)
class Held:
    """Greedy answers of an adapter to the fixed prompts."""

    truth: float
    tokens: float


class Course:
    """One line, where it was left."""

    def __init__(self, lab: Lab, line: Line, path: Path) -> None:
        self._lab, self._line, self._path = lab, line, path
        self._noise = ConfiguredScorer((python("noise"),), min_spread=MIN_SPREAD)
        self._verifier = lab.scorer(TASK)
        self._sampler = VllmSampler(
            [lab.client], SAMPLING, base_model=BASE, answer_temperature=0.0, min_spread=MIN_SPREAD
        )
        self._evaluator = Evaluator(self._sampler, self._verifier, GATE)

    async def run(self, rounds: int) -> None:
        """Up to so many rounds more, at most to the line's end."""
        done = read(self._path)
        if not done:
            start = await self._held(None)
            write(self._path, {"round": 0, "serving": None, "truth": start.truth, "tokens": start.tokens})
            done = read(self._path)
        for number in range(len(done), min(len(done) + rounds, self._line.rounds + 1)):
            last = read(self._path)[-1]
            serving = self._lab.store.get(last["serving"]) if last["serving"] else None
            began = time.monotonic()
            row, after = await self._round(number, serving, Held(last["truth"], last["tokens"]))
            seconds = time.monotonic() - began
            write(self._path, {**asdict(row), "serving": after.name if after else None, "seconds": seconds})
            print(
                f"{self._line.name} {number}/{self._line.rounds}: {row.outcome}, truth {row.truth:.3f}, "
                f"entropy {row.meters['entropy']:.2f}, {seconds:.0f} s",
                flush=True,
            )

    async def _round(
        self, number: int, serving: AdapterRecord | None, before: Held
    ) -> tuple[Row, AdapterRecord | None]:
        prompts = _prompts(Split.TRAIN, number, PROMPTS)
        async with self._serving(serving) as model:
            found = self._sampler.sample(prompts, model=model, seed=SEED + number, aids=SamplingAids())
            groups = [group async for group in found]
        row = Row(number, "failed", measure(groups), truth=before.truth, tokens=before.tokens)
        scored = await self._scored(prompts, groups)
        rewards = [reward for group in scored for reward in group.rewards]
        row.reward = sum(rewards) / len(rewards) if rewards else None
        try:
            candidate, row.trained = await self._lab.train(scored, serving, dict(TRAINING), SEED + number)
        except TrainingError as error:
            row.reason = str(error)
            return row, serving
        return await self._judged(row, serving, candidate)

    async def _judged(
        self, row: Row, serving: AdapterRecord | None, candidate: AdapterRecord
    ) -> tuple[Row, AdapterRecord | None]:
        fresh = _prompts(Split.DEV, row.round, GATE.prompts)
        far = await self._far(fresh[:DRIFT], candidate, serving, SEED + row.round)
        async with self._serving(serving) as model, self._serving(candidate) as its:
            assert its is not None
            found = await self._evaluator.evaluate(
                fresh, incumbent=model, candidate=its, seed=SEED, distance=far, progress=lambda done, of: None
            )
            verdict = found.verdict
            kept = self._line.accept is Accept.ALL or verdict.decision is Decision.PASS
            held = await self._held(its) if kept else None
        row.outcome, row.reason = outcome(verdict), verdict.summary
        row.against = against(verdict)
        row.numbers, row.entropy = dict(verdict.numbers), far["entropy"]
        if held is None:
            return row, serving
        row.truth = row.candidate_truth = held.truth
        return replace(row, tokens=held.tokens), candidate

    async def _scored(self, prompts: Sequence[Prompt], groups: Sequence[CompletionGroup]) -> list[ScoredGroup]:
        by_id = {prompt.id: prompt for prompt in prompts}
        found = [await grade(self._noise, by_id[group.prompt_id], group, SAMPLING.max_tokens) for group in groups]
        return [group for group in found if group is not None]

    async def _far(
        self, prompts: Sequence[Prompt], candidate: AdapterRecord, start: AdapterRecord | None, seed: int
    ) -> Mapping[str, float]:
        async with self._serving(candidate) as its:
            own, bases = [await self._sampler.draw(prompts, model=model, seed=seed) for model in (its, None)]
        job = DivergenceJob(next(self._lab.attempts), 1, tuple(own), candidate, start)
        return distance(await self._lab.trainer(dict(TRAINING)).measure(job), own, bases)

    async def _held(self, model: str | None) -> Held:
        items = TASK.items(Split.HELD_OUT, SEED, HELD_OUT)
        prompts = TASK.prompts(Split.HELD_OUT, SEED, items)
        answers = await self._sampler.answer(prompts, model=model)
        if any(answer.is_none for answer in answers):
            raise RuntimeError(f"the server did not answer all held-out prompts; see {self._lab.cache / 'vllm.log'}")
        scores = [
            (await self._verifier.absolute(prompt, [answer.text]))[0]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        known = [score for score in scores if score is not None]
        return Held(sum(known) / len(known), sum(answer.completion_tokens for answer in answers) / len(answers))

    @asynccontextmanager
    async def _serving(self, adapter: AdapterRecord | None) -> AsyncIterator[str | None]:
        async with self._lab.serving(adapter):
            yield adapter.name if adapter else None


def _prompts(split: Split, number: int, count: int) -> list[Prompt]:
    """Drawn anew for every round: a gate's never train, and some come back in a later gate."""
    seed = 100 * SEED + number
    return TASK.prompts(split, seed, TASK.items(split, seed, count))


def read(path: Path) -> list[dict[str, Any]]:
    """Whole lines; one that an interruption tore is left out, and its round done again."""
    if not path.is_file():
        return []
    raw = path.read_text(encoding="utf-8")
    whole = raw[: raw.rfind("\n") + 1]
    if whole != raw:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def write(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


async def run(lab: Lab, line: Line, path: Path, rounds: int) -> None:
    """Go on with a line."""
    await Course(lab, line, path).run(rounds)
