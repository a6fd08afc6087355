"""Rounds in a row with a simulated model and the product's own scoring, learning, gate and meters.

What an accepted candidate becomes is what serves, and the next round starts from it. A round that fails or whose
candidate does not pass leaves what serves as it is.

scenario and seed → (sample → grade → train → answer, judge) × rounds → one `Row` per round
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.collapse.kinds import MAX_TOKENS, prompt
from bench.collapse.ports import BASE, TableSampler, TableTrainer
from bench.collapse.rows import Accept, Row, against, outcome
from bench.collapse.table import Table, divergence
from tao_daemon.config import Gate, Training
from tao_daemon.config.scorers import ScorerConfig
from tao_daemon.daemon.grading import grade
from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.meters import measure
from tao_daemon.domain.ports import TrainingJob
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.report import Decision, Verdict
from tao_daemon.domain.round import Outcome
from tao_daemon.domain.signals import DecoysJudged, ScorerFailed, Signal
from tao_daemon.evaluation.distance import distance
from tao_daemon.evaluation.evaluator import Evaluator
from tao_daemon.scoring.scorer import ConfiguredScorer

ROUNDS, PROMPTS, COMPLETIONS = 20, 32, 8
LEARNING_RATE = 0.1
"""A table needs larger steps than a LoRA: eight of them move an answer by some half a nat."""
GATE = Gate(temperature=1.0, resamples=1000, prompts=200, min_prompts=200)
_HELD_OUT = 40_000
"""Where the numbers of held-out prompts begin."""


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    scorers: tuple[ScorerConfig, ...]
    gate_scorers: tuple[ScorerConfig, ...] = ()
    """Those of training when empty, as in the configuration."""
    accept: Accept = Accept.PASSED
    rounds: int = ROUNDS
    prompts: int = PROMPTS
    """Training prompts per round."""
    client_limit: int | None = MAX_TOKENS
    """The length that clients ask for: who exceeds it earns nothing. None: who is cut off is left out."""
    gate: Gate = GATE
    training: Training = field(default_factory=lambda: Training(learning_rate=LEARNING_RATE))


@dataclass(slots=True)
class Course:
    """What a simulation leaves."""

    rows: list[Row]
    base: Table
    serving: Table


class Simulation:
    """One scenario with one seed. Close it."""

    def __init__(self, scenario: Scenario, seed: int, root: Path, session: aiohttp.ClientSession | None = None) -> None:
        self._scenario, self._seed = scenario, seed
        self._tables = {BASE: Table.base()}
        self._heard: list[Signal] = []
        spread = scenario.training.min_spread
        scorers = [scenario.scorers, *([scenario.gate_scorers] if scenario.gate_scorers else [])]
        self._scorers = [
            ConfiguredScorer(each, min_spread=spread, session=session, emit=self._heard.append) for each in scorers
        ]
        self._sampler = TableSampler(self._tables, COMPLETIONS)
        self._trainer = TableTrainer(self._tables, scenario.training, root)
        self._evaluator = Evaluator(self._sampler, self._scorers[-1], scenario.gate)

    async def run(self) -> Course:
        serving, rows = BASE, []
        for number in range(1, self._scenario.rounds + 1):
            row, serving = await self._round(number, serving)
            rows.append(row)
        return Course(rows, self._tables[BASE], self._tables[serving])

    async def close(self) -> None:
        for scorer in self._scorers:
            await scorer.close()

    async def _round(self, number: int, serving: str) -> tuple[Row, str]:
        self._heard.clear()
        scenario = self._scenario
        fresh = range(number * scenario.prompts, (number + 1) * scenario.prompts)
        prompts = [prompt(self._seed, each, scenario.client_limit) for each in fresh]
        seed = self._seed * 1000 + number
        model = None if serving == BASE else serving
        groups = [group async for group in self._sampler.sample(prompts, model=model, seed=seed)]
        graded = [
            await grade(self._scorers[0], each, group, MAX_TOKENS) for each, group in zip(prompts, groups, strict=True)
        ]
        scored = tuple(group for group in graded if group is not None)
        row = Row(number, Outcome.FAILED.value, measure(groups), reward=_mean_reward(scored))
        try:
            candidate, row.trained = self._trainer.train(
                TrainingJob(number, 1, scored, None, seed), serving, lambda step: None
            )
        except TrainingError as error:
            row.reason = str(error)
        else:
            verdict = await self._judged(number, model, candidate)
            row.outcome, row.reason = outcome(verdict), verdict.summary
            row.against = against(verdict)
            row.numbers = dict(verdict.numbers)
            row.candidate_truth = self._tables[candidate].truth
            if verdict.decision is Decision.PASS or self._scenario.accept is Accept.ALL:
                serving = candidate
        self._note(row, self._tables[serving])
        return row, serving

    async def _judged(self, number: int, model: str | None, candidate: str) -> Verdict:
        first = _HELD_OUT + number * self._scenario.gate.prompts
        held_out = [prompt(self._seed, first + place) for place in range(self._scenario.gate.prompts)]
        seed = self._seed * 1000 + number
        found = await self._evaluator.evaluate(
            held_out,
            incumbent=model,
            candidate=candidate,
            seed=seed,
            distance=await self._far(held_out[: self._scenario.gate.divergence_prompts], model, candidate, seed),
            progress=lambda done, of: None,
        )
        return found.verdict

    async def _far(
        self, prompts: Sequence[Prompt], model: str | None, candidate: str, seed: int
    ) -> Mapping[str, float]:
        own, bases = [await self._sampler.draw(prompts, model=name, seed=seed) for name in (candidate, None)]
        tokens = sum(len(said.token_ids) for group in own for said in group.completions)
        tables = [self._tables[name] for name in (candidate, model or BASE, BASE)]
        return distance(divergence(*tables, answers=len(own), tokens=tokens), own, bases)

    def _note(self, row: Row, serving: Table) -> None:
        failures: Counter[str] = Counter()
        for signal in self._heard:
            if isinstance(signal, ScorerFailed):
                failures[signal.kind] += signal.count
            elif isinstance(signal, DecoysJudged):
                row.planted += signal.planted
                row.fooled += signal.fooled
        row.failures = dict(failures)
        row.truth, row.tokens, row.entropy = serving.truth, serving.tokens, serving.entropy
        row.shares = serving.shares()


def _mean_reward(scored: tuple[ScoredGroup, ...]) -> float | None:
    rewards = [reward for group in scored for reward in group.rewards]
    return sum(rewards) / len(rewards) if rewards else None
