"""A round as the daemon runs one: its real phases, store, scorers, gate, journal; only servers and trainer are played.

No server is asked and nothing is trained: the model's answers are scripted, and a stand-in trains by counting.
"""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tao_daemon import __version__
from tao_daemon.app.backends import open_store
from tao_daemon.app.paths import journal_path
from tao_daemon.app.settings import policy_of, round_settings
from tao_daemon.config import Config, parse_config
from tao_daemon.daemon.phases import RoundWork
from tao_daemon.daemon.round_parts import Parts
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, Lineage
from tao_daemon.domain.commands import CloseRound, RunPhase
from tao_daemon.domain.completion import Answer, Completion, CompletionGroup
from tao_daemon.domain.events import DaemonStarted, Event, RolloutAborted, RoundClosed, RoundRequested
from tao_daemon.domain.ports import (
    Divergence,
    DivergenceJob,
    Example,
    Ingest,
    SamplingAids,
    TrainingJob,
    TrainingResult,
)
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import discard
from tao_daemon.evaluation.evaluator import Evaluator
from tao_daemon.learning.advantage import select
from tao_daemon.learning.objectives.clipped import ClippedPolicyGradient
from tao_daemon.learning.objectives.ratios import Clip
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.rollout.memory_fleet import MemoryFleet
from tao_daemon.scoring.scorer import ConfiguredScorer

GOOD, BAD = '{"category": "billing"}', "It is about billing."


class ScriptedSampler:
    """The base model is right once in four; the candidate as often as `skill` says."""

    def __init__(self, skill: float) -> None:
        self._skill = skill
        self.shown: dict[str, list[Example]] = {}
        """By prompt, the earlier completions that a few-shot strategy could show."""

    async def sample(
        self, prompts: Sequence[Prompt], *, model: str | None, seed: int, aids: SamplingAids
    ) -> AsyncGenerator[CompletionGroup, None]:
        for number, prompt in enumerate(prompts):
            self.shown[prompt.id] = list(aids.examples(prompt))
            dice = random.Random(f"{seed}/{prompt.id}")
            texts = [BAD] * 4 if number == 0 else [BAD, GOOD, *(dice.choice((GOOD, BAD, BAD)) for _ in range(2))]
            tokens = (1, 2, 3)
            completions = [
                Completion(n, "plain", text, tokens, (-0.5, -0.5, -0.5), "length" if n == 3 else "stop")
                for n, text in enumerate(texts)
            ]
            yield CompletionGroup(prompt.id, (7, 8, 9), tuple(completions))

    async def draw(self, prompts: Sequence[Prompt], *, model: str | None, seed: int) -> Sequence[CompletionGroup]:
        return [
            CompletionGroup(prompt.id, (7, 8, 9), (Completion(0, "plain", BAD, (1,), (-0.5,), "stop"),))
            for prompt in prompts
        ]

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        chance = 0.25 if model is None else self._skill
        return [
            Answer(GOOD if random.Random(f"{model}/{prompt.id}").random() < chance else BAD, 5, "stop")
            for prompt in prompts
        ]


class CountingTrainer:
    """Selects what a worker would train on, and reports it as one does."""

    def __init__(self, config: Config) -> None:
        self._training = config.training

    async def train(self, job: TrainingJob, progress: Callable[..., None]) -> TrainingResult:
        limits = self._training
        objective = ClippedPolicyGradient(Clip(limits.clip_low, limits.clip_high, limits.strategy_clip_high))
        chosen = select(
            job.groups, objective, min_spread=limits.min_spread, max_sequence_tokens=limits.max_sequence_tokens
        )
        metrics = {
            "groups": float(len(chosen.groups)),
            "samples": float(sum(len(group.samples) for group in chosen.groups)),
            **{f"dropped_groups_{why}": float(count) for why, count in chosen.dropped_groups.items()},
        }
        return TrainingResult("", "base", metrics)

    async def measure(self, job: DivergenceJob) -> Divergence:
        return Divergence(0.25, 0.5, 1.0, len(job.groups), len(job.groups))


class Shelf:
    """Adapters without files."""

    root = Path()

    def __init__(self) -> None:
        self._records: dict[str, AdapterRecord] = {}

    def publish(self, directory: str, lineage: Lineage, created_at: float) -> AdapterRecord:
        name = f"r{lineage.round}"
        self._records[name] = AdapterRecord(name, name, Path(name), 8, created_at, lineage, Fingerprint(()))
        return self._records[name]

    def get(self, name: str) -> AdapterRecord:
        return self._records[name]

    def names(self) -> Sequence[str]:
        return list(self._records)

    def delete(self, name: str) -> None:
        self._records.pop(name, None)


@dataclass
class Past:
    """A data directory in which rounds were run, and the config they ran under."""

    config: Config
    settings: dict[str, Any]
    shelf: Shelf

    @property
    def archive(self) -> RoundArchive:
        return RoundArchive(self.config.daemon.data_dir / "rounds")

    @contextmanager
    def touched_report(self, number: int, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """With another report in its place."""
        path = self.archive.directory(number) / "report.json"
        original = path.read_text()
        report = json.loads(original)
        change(report)
        path.write_text(json.dumps(report))
        try:
            yield
        finally:
            path.write_text(original)

    def configured(self, **sections: dict[str, Any]) -> Config:
        """The config with some values changed."""
        merged = {name: {**self.settings.get(name, {}), **values} for name, values in sections.items()}
        return parse_config({**self.settings, **merged})

    def run_round(self, skill: float) -> ScriptedSampler:
        """Returns the sampler that it used."""
        return asyncio.run(self._run(skill))

    async def _run(self, skill: float) -> ScriptedSampler:
        store = open_store(self.config, discard)
        sampler = ScriptedSampler(skill)
        scorer = ConfiguredScorer(self.config.scorers, min_spread=self.config.training.min_spread)
        evaluator = Evaluator(sampler, scorer, self.config.gate)
        trainer = CountingTrainer(self.config)
        parts = Parts(store, sampler, scorer, scorer, trainer, evaluator, self.shelf, MemoryFleet(), self.archive)
        ticks = iter(range(1, 1_000_000))
        work = RoundWork(parts, round_settings(self.config), emit=discard, clock=lambda: float(next(ticks)))
        policy = policy_of(self.config)
        try:
            with closing(Journal(journal_path(self.config))) as journal:
                state = last_state(journal)
                events: list[Event] = [DaemonStarted(__version__, self.config.digest)]
                events += [RolloutAborted("tests", "the next round")] if state.open_rollout else []
                events.append(RoundRequested("enough prompts"))
                while events:
                    step = apply_event(journal, state, events.pop(0), policy, float(next(ticks)))
                    state = step.state
                    for command in step.commands:
                        if isinstance(command, RunPhase):
                            events.append(await work.run(command.round))
                        elif isinstance(command, CloseRound):
                            await work.put_away(command.closing)
                            events.append(RoundClosed(command.closing.round.id))
        finally:
            await asyncio.to_thread(store.close)
        return sampler


def _prompts(count: int, first: int) -> tuple[Prompt, ...]:
    """Of random words, so that no two are near-duplicates. Every other one asks for JSON itself."""
    found = []
    for number in range(first, first + count):
        dice = random.Random(number)
        words = ["".join(dice.choices(string.ascii_lowercase, k=dice.randint(3, 9))) for _ in range(10)]
        request: dict[str, Any] = {"messages": [{"role": "user", "content": " ".join(words)}]}
        if number % 2:
            request["response_format"] = {"type": "json_object"}
        source = Source("tickets", 0, number)
        found.append(Prompt(source.prompt_id, request, source, received_at=float(number)))
    return tuple(found)


def _site(root: Path) -> Past:
    settings: dict[str, Any] = {
        "daemon": {"data_dir": str(root / "data")},
        "kafka": {"enabled": False},
        "buffer": {"held_out_fraction": 0.5, "min_free_disk_mib": 0},
        "round": {"prompts": 8},
        "sampling": {"max_tokens": 64},
        "training": {"min_groups": 2},
        "gate": {"prompts": 48, "min_prompts": 32, "resamples": 1000},
        "scorers": [
            {"name": "json", "type": "regex", "pattern": r"\{.*\}", "weight": 2.0},
            {"name": "billing", "type": "regex", "pattern": ".*billing.*"},
        ],
    }
    config = parse_config(settings)
    config.daemon.data_dir.mkdir()
    store = open_store(config, discard)
    store.submit(Ingest(_prompts(240, 0), {})).result()
    store.close()
    return Past(config, settings, Shelf())


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """A buffer with prompts and a config; no round yet."""
    return _site(tmp_path)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """With one round whose candidate was accepted. Who touches it puts back what was there."""
    site = _site(tmp_path_factory.mktemp("accepted"))
    site.run_round(0.9)
    return site
