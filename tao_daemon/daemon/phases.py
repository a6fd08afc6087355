"""The work of each phase of a round: reads the artefact before it, leaves its own, answers with an event.

Every phase may be interrupted at any point and run again: claims are idempotent, sampling continues at the
first prompt without completions, training starts in a directory of its own attempt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from tao_daemon import __version__
from tao_daemon.domain.adapter import Lineage, OffsetRange
from tao_daemon.domain.completion import CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import TaoError, UpstreamError
from tao_daemon.domain.events import CandidateJudged, Event, PhaseCompleted, PhaseFailed
from tao_daemon.domain.ports import (
    AdapterStore,
    Claim,
    Clock,
    Fleet,
    PromptStore,
    Sampler,
    Scorer,
    Trainer,
    TrainingJob,
    TrainingResult,
)
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.report import Pair, Verdict
from tao_daemon.domain.round import ClosingRound, Outcome, Phase, RoundState
from tao_daemon.domain.signals import (
    CandidateEvaluated,
    Emit,
    GroupsScored,
    PhaseProgressed,
    TrainingEnded,
    TrainingStepped,
)
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.scoring.cutoff import settle_cut_off

log = logging.getLogger(__name__)


class Evaluated(Protocol):
    """A verdict with both answers behind every pair."""

    @property
    def verdict(self) -> Verdict: ...

    @property
    def pairs(self) -> Sequence[Pair]: ...

    @property
    def answers(self) -> Sequence[tuple[str, str]]:
        """(incumbent, candidate) texts, in the order of `pairs`."""
        ...


class Evaluator(Protocol):
    async def evaluate(
        self,
        prompts: Sequence[Prompt],
        *,
        incumbent: str | None,
        candidate: str,
        seed: int,
        progress: Callable[[int, int], None],
    ) -> Evaluated: ...


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """The plain values a round needs of the configuration."""

    prompts: int
    tenant_share: float
    held_out_prompts: int
    min_groups: int
    min_spread: float
    sampling_limit: int
    outage_seconds: float
    base_seed: int
    base_model: str
    config_digest: str


@dataclass(frozen=True, slots=True)
class Parts:
    """The backends a round works with."""

    store: PromptStore
    sampler: Sampler
    scorer: Scorer
    trainer: Trainer
    evaluator: Evaluator
    adapters: AdapterStore
    fleet: Fleet
    archive: RoundArchive


class OutagePatience:
    """How long to wait for a server that does not answer: pauses double up to a minute, the sum is bounded."""

    def __init__(self, limit_seconds: float, now: float) -> None:
        self._until = now + limit_seconds
        self._pause = 2.0

    def next_pause(self, now: float) -> float | None:
        """Seconds to wait before the next try; None when patience is at its end."""
        if now >= self._until:
            return None
        pause, self._pause = min(self._pause, self._until - now), min(self._pause * 2, 60.0)
        return pause


class _Unfit(TaoError):
    """The phase ended, but not with something the next one can use."""


class RoundWork:
    """Runs phases. Holds nothing of its own between them: what a phase needs is on disk or in the store."""

    def __init__(self, parts: Parts, settings: RoundSettings, *, emit: Emit, clock: Clock) -> None:
        self._parts = parts
        self._settings = settings
        self._emit = emit
        self._clock = clock

    async def run(self, running: RoundState) -> Event:
        """Do `running.phase`. A server that does not answer is waited for, and the phase begins again where it
        was; other failures that a round may have become PhaseFailed; bugs propagate.
        """
        patience = OutagePatience(self._settings.outage_seconds, time.monotonic())
        while True:
            try:
                return await self._attempt(running)
            except UpstreamError as error:
                pause = patience.next_pause(time.monotonic())
                if pause is None:
                    return _failed(running, error)
                log.warning("a phase waits for its server", extra={"phase": running.phase, "reason": str(error)})
                await asyncio.sleep(pause)
            except (TaoError, OSError) as error:
                return _failed(running, error)

    async def put_away(self, closing: ClosingRound) -> None:
        """Give the prompts back or use them up, and finish the report. Idempotent; raises TaoError, OSError."""
        ended, archive = closing.round, self._parts.archive
        await self._parts.store.release(ended.id, consumed=closing.outcome is Outcome.ACCEPTED)
        report = {
            "started_at": ended.started_at,
            "reason": ended.reason,
            "incumbent": ended.incumbent,
            "outcome": closing.outcome.value,
            "outcome_reason": closing.reason,
            "candidate": ended.candidate,
            "ended_at": self._clock(),
        }
        await asyncio.to_thread(archive.update_report, ended.id, report)
        await asyncio.to_thread(archive.discard_training, ended.id)

    async def _attempt(self, running: RoundState) -> Event:
        work = {
            Phase.CLAIMING: self._claim,
            Phase.SAMPLING: self._sample,
            Phase.SCORING: self._score,
            Phase.TRAINING: self._train,
            Phase.EVALUATING: self._evaluate,
        }[running.phase]
        started = time.monotonic()
        event, numbers = await work(running)
        numbers = {"seconds": round(time.monotonic() - started, 3), **numbers, **self._provenance(running)}
        await asyncio.to_thread(
            self._parts.archive.update_report, running.id, {"phases": {running.phase.value: numbers}}
        )
        return event

    def _seed(self, running: RoundState) -> int:
        return self._settings.base_seed + running.id

    def _provenance(self, running: RoundState) -> dict[str, Any]:
        """What it takes to do the phase again: a restart may continue a round with another version or config."""
        return {"seed": self._seed(running), "version": __version__, "config_digest": self._settings.config_digest}

    def _claim_of(self, running: RoundState, limit: int) -> Claim:
        accepts = self._parts.scorer.accepts
        return Claim(running.id, limit, self._settings.tenant_share, accepts)

    async def _training_prompts(self, running: RoundState) -> Sequence[Prompt]:
        return await self._parts.store.claim_training(self._claim_of(running, self._settings.prompts))

    async def _claim(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        prompts = await self._training_prompts(running)
        if len(prompts) < self._settings.min_groups:
            raise _Unfit(
                f"only {len(prompts)} fresh training prompts that a scorer matches, {self._settings.min_groups} are "
                "needed; wait for traffic, or check [[scorers]] match"
            )
        report = {"started_at": running.started_at, "reason": running.reason, "incumbent": running.incumbent}
        await asyncio.to_thread(self._parts.archive.update_report, running.id, report)
        return self._done(running, f"{len(prompts)} prompts claimed"), {"prompts": len(prompts)}

    async def _sample(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        archive = self._parts.archive
        if await asyncio.to_thread(archive.has_completions, running.id):
            groups = await asyncio.to_thread(archive.completions, running.id)
            return self._done(running, f"{len(groups)} groups were sampled before"), {"groups": len(groups)}
        prompts = await self._training_prompts(running)
        kept = {group.prompt_id for group in await asyncio.to_thread(archive.sampled_groups, running.id)}
        missing = [prompt for prompt in prompts if prompt.id not in kept]
        done = len(prompts) - len(missing)
        self._emit(PhaseProgressed(running.id, running.phase, done, len(prompts)))
        async for group in self._parts.sampler.sample(missing, model=running.incumbent, seed=self._seed(running)):
            await asyncio.to_thread(archive.append_group, running.id, group)
            done += 1
            self._emit(PhaseProgressed(running.id, running.phase, done, len(prompts)))
        groups = await asyncio.to_thread(archive.sampled_groups, running.id)
        if len(groups) < self._settings.min_groups:
            raise _Unfit(f"only {len(groups)} of {len(prompts)} prompts could be sampled")
        await asyncio.to_thread(archive.finish_sampling, running.id)
        return self._done(running, f"{len(groups)} groups sampled"), _sampling_numbers(groups)

    async def _score(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        archive, scorer = self._parts.archive, self._parts.scorer
        groups = await asyncio.to_thread(archive.completions, running.id)
        prompts = {prompt.id: prompt for prompt in await self._training_prompts(running)}
        scored: list[ScoredGroup] = []
        for number, group in enumerate(groups, start=1):
            graded = await grade(scorer, prompts[group.prompt_id], group, self._settings.sampling_limit)
            if graded is not None:
                scored.append(graded)
            self._emit(PhaseProgressed(running.id, running.phase, number, len(groups)))
        useful = [s for s in scored if s.spread >= self._settings.min_spread]
        signal = scoring_signal(useful, dropped=len(groups) - len(useful), failures=len(groups) - len(scored))
        self._emit(signal)
        if len(useful) < self._settings.min_groups:
            raise _Unfit(
                f"only {len(useful)} of {len(groups)} groups can teach anything ({signal.scorer_failures} could not "
                f"be scored, the others differ by less than {self._settings.min_spread}); "
                f"{self._settings.min_groups} are needed"
            )
        await asyncio.to_thread(archive.write_scores, running.id, useful)
        detail = f"{len(useful)} of {len(groups)} groups can teach; mean reward {signal.mean_reward:.3f}"
        return self._done(running, detail), {
            "kept": signal.kept,
            "dropped": signal.dropped,
            "scorer_failures": signal.scorer_failures,
            "mean_reward": signal.mean_reward,
            "mean_reward_plain": signal.mean_reward_plain,
            "min_spread": self._settings.min_spread,
            "sampling_limit": self._settings.sampling_limit,
        }

    async def _train(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        archive, adapters = self._parts.archive, self._parts.adapters
        groups = tuple(await asyncio.to_thread(archive.scored_groups, running.id))
        start = await asyncio.to_thread(adapters.get, running.incumbent) if running.incumbent else None
        job = TrainingJob(running.id, running.attempt, groups, start, self._seed(running))

        def progress(step: TrainingStepped) -> None:
            self._emit(step)
            self._emit(PhaseProgressed(running.id, running.phase, step.step, step.steps))

        self._emit(PhaseProgressed(running.id, running.phase, 0, 1))
        result = await self._trained(job, progress)
        trained = {scored.group.prompt_id for scored in groups}
        sources = [prompt.source for prompt in await self._training_prompts(running) if prompt.id in trained]
        lineage = Lineage(
            round=running.id,
            parent=running.incumbent,
            base_model=self._settings.base_model,
            base_digest=result.base_digest,
            prompt_ids=tuple(scored.group.prompt_id for scored in groups),
            scorers=tuple(sorted({name for scored in groups for name in scored.scorers})),
            config_digest=self._settings.config_digest,
            offsets=_offset_ranges(sources),
        )
        record = await asyncio.to_thread(adapters.publish, result.directory, lineage, self._clock())
        return self._done(running, f"{record.name} trained", candidate=record.name), dict(result.metrics)

    async def _trained(self, job: TrainingJob, progress: Callable[[TrainingStepped], None]) -> TrainingResult:
        """Train, and tell how that ended."""
        began, outcome = time.monotonic(), "cancelled"
        measured: Mapping[str, float] = {}
        try:
            result = await self._parts.trainer.train(job, progress)
            outcome, measured = "trained", result.metrics
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._emit(TrainingEnded(outcome, time.monotonic() - began, measured))
        return result

    async def _evaluate(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        assert running.candidate is not None
        parts = self._parts
        prompts = await parts.store.claim_held_out(self._claim_of(running, self._settings.held_out_prompts))
        served = await parts.fleet.serve(await asyncio.to_thread(parts.adapters.get, running.candidate))
        log.info("candidate is served for evaluation", extra={"adapter": running.candidate, "fingerprint": served})
        evaluated = await parts.evaluator.evaluate(
            prompts,
            incumbent=running.incumbent,
            candidate=running.candidate,
            seed=self._seed(running),
            progress=lambda done, total: self._emit(PhaseProgressed(running.id, running.phase, done, total)),
        )
        rows = [_evaluation_row(pair, texts) for pair, texts in zip(evaluated.pairs, evaluated.answers, strict=True)]
        await asyncio.to_thread(parts.archive.write_evaluation, running.id, rows)
        verdict = evaluated.verdict
        self._emit(CandidateEvaluated(verdict.decision, verdict.numbers))
        report = {
            "candidate": running.candidate,
            "verdict": asdict(verdict),
        }
        await asyncio.to_thread(parts.archive.update_report, running.id, report)
        judged = CandidateJudged(running.id, running.attempt, verdict.decision, verdict.summary)
        # Whose random numbers the bootstrap drew: another version may draw others.
        return judged, {"prompts": len(prompts), "fingerprint": served, "numpy": np.__version__}

    def _done(self, running: RoundState, detail: str, candidate: str | None = None) -> PhaseCompleted:
        return PhaseCompleted(running.id, running.attempt, running.phase, candidate, detail)


def _failed(running: RoundState, error: Exception) -> PhaseFailed:
    return PhaseFailed(running.id, running.attempt, running.phase, str(error) or type(error).__name__)


def _offset_ranges(sources: Sequence[Source]) -> tuple[OffsetRange, ...]:
    """One range per partition, in order."""
    offsets: dict[tuple[str, int], list[int]] = {}
    for source in sources:
        offsets.setdefault((source.topic, source.partition), []).append(source.offset)
    return tuple(OffsetRange(*place, min(found), max(found)) for place, found in sorted(offsets.items()))


async def grade(scorer: Scorer, prompt: Prompt, group: CompletionGroup, sampling_limit: int) -> ScoredGroup | None:
    """The group with its rewards, and without the completions that say nothing; None when one could not be scored."""
    rewards = await scorer.score(prompt, [completion.text for completion in group.completions])
    if not group.completions or None in rewards:
        return None
    graded = ScoredGroup(group, tuple(r for r in rewards if r is not None), scorer.names(prompt))
    return settle_cut_off(graded, prompt.request, sampling_limit)


def _sampling_numbers(groups: Sequence[CompletionGroup]) -> dict[str, Any]:
    completions = [c for group in groups for c in group.completions]
    return {
        "groups": len(groups),
        "completions": len(completions),
        "tokens": sum(len(c.token_ids) for c in completions),
    }


def scoring_signal(useful: Sequence[ScoredGroup], *, dropped: int, failures: int) -> GroupsScored:
    """What scoring came to; means are over the rewards of the groups that are kept."""
    rewards = [reward for scored in useful for reward in scored.rewards]
    plain = [
        reward
        for scored in useful
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True)
        if completion.is_plain
    ]
    return GroupsScored(len(useful), dropped, _mean(rewards), _mean(plain), failures)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _evaluation_row(pair: Pair, texts: tuple[str, str]) -> dict[str, Any]:
    return {
        "prompt_id": pair.prompt_id,
        "incumbent_text": texts[0],
        "candidate_text": texts[1],
        "incumbent_score": pair.incumbent_score,
        "candidate_score": pair.candidate_score,
        "incumbent_tokens": pair.incumbent_tokens,
        "candidate_tokens": pair.candidate_tokens,
        "incumbent_truncated": pair.incumbent_truncated,
        "candidate_truncated": pair.candidate_truncated,
    }
