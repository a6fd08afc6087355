"""The work of each phase of a round: reads the artefact before it, leaves its own, answers with an event.

Every phase may be interrupted at any point and run again: claims are idempotent, sampling continues at the
first prompt without completions, training starts in a directory of its own attempt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import numpy as np

from tao_daemon import __version__
from tao_daemon.daemon.carrying import Carried, carried_groups, carried_prompts, rounds_to_carry
from tao_daemon.daemon.claims import RoundClaims, missing_held_out, missing_training
from tao_daemon.daemon.example_book import open_book
from tao_daemon.daemon.grading import grade_all, scoring_signal
from tao_daemon.daemon.outage import OutagePatience
from tao_daemon.daemon.round_parts import Parts, RoundSettings
from tao_daemon.domain.adapter import Lineage, OffsetRange
from tao_daemon.domain.completion import CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import NothingSampled, PassTimeout, ServerUnfit, TaoError, UpstreamError
from tao_daemon.domain.events import CandidateJudged, Event, PhaseCompleted, PhaseFailed
from tao_daemon.domain.meters import measure
from tao_daemon.domain.ports import Clock, DivergenceJob, SamplingAids, TrainingJob, TrainingResult
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.report import Pair
from tao_daemon.domain.round import ClosingRound, Outcome, Phase, RoundState
from tao_daemon.domain.signals import (
    CandidateEvaluated,
    DivergenceMeasured,
    Emit,
    PhaseProgressed,
    SamplesMeasured,
    TrainingEnded,
    TrainingSignal,
    TrainingStepped,
)
from tao_daemon.evaluation.distance import distance

log = logging.getLogger(__name__)


class _Unfit(TaoError):
    """The phase ended, but not with something the next one can use."""


class RoundWork:
    """Runs phases, one at a time. Holds nothing of its own between them: what a phase needs is on disk or in the
    store."""

    def __init__(self, parts: Parts, settings: RoundSettings, *, emit: Emit, clock: Clock) -> None:
        self._parts = parts
        self._settings = settings
        self._emit = emit
        self._clock = clock
        self._patience = OutagePatience(settings.outage_seconds)

    async def run(self, running: RoundState) -> Event:
        """Do `running.phase`. A server that does not answer is waited for, and the phase begins again where it
        was; other failures that a round may have become PhaseFailed; bugs propagate.
        """
        self._patience = OutagePatience(self._settings.outage_seconds)
        while True:
            try:
                return await self._attempt(running)
            except UpstreamError as error:
                pause = self._patience.next_pause(time.monotonic())
                if pause is not None:
                    log.warning("a phase waits for its server", extra={"phase": running.phase, "reason": str(error)})
                    await asyncio.sleep(pause)
                elif not await self._sampled_enough(running, error):
                    return _failed(running, error, blameless=True)
            except PassTimeout as error:
                if not await self._sampled_enough(running, error):
                    return _failed(running, error, blameless=False)
            except (TaoError, OSError) as error:
                return _failed(running, error, blameless=isinstance(error, NothingSampled | ServerUnfit))

    async def _sampled_enough(self, running: RoundState, error: TaoError) -> bool:
        """End a sampling that cannot get further, by what it has, where that is enough and the servers are there: some
        prompts never find an answer, and the hours that went into the others need not be lost."""
        archive = self._parts.archive
        if running.phase is not Phase.SAMPLING:
            return False
        try:
            if await asyncio.to_thread(archive.has_completions, running.id):
                return False
            groups = len(await asyncio.to_thread(archive.sampled_groups, running.id))
            if groups < self._settings.min_groups:
                return False
            await self._parts.fleet.check()
            await asyncio.to_thread(archive.finish_sampling, running.id)
        except (TaoError, OSError):
            return False
        log.warning("sampling ends without the rest", extra={"groups": groups, "reason": str(error)})
        return True

    async def put_away(self, closing: ClosingRound) -> None:
        """Give the prompts back or use them up, and finish the report. Idempotent; raises TaoError, OSError."""
        ended, archive = closing.round, self._parts.archive
        accepted = closing.outcome is Outcome.ACCEPTED
        carried = await asyncio.to_thread(carried_prompts, archive, ended.id) if accepted else ()
        await self._parts.store.release(ended.id, consumed=accepted, tried=closing.tells_of_prompts, carried=carried)
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

    @property
    def _claims(self) -> RoundClaims:
        return RoundClaims(self._settings, self._parts.scorer.accepts, self._parts.gate_scorer.judges)

    def _progressed(self, running: RoundState, done: int, total: int) -> None:
        self._patience.reached(done)
        self._emit(PhaseProgressed(running.id, running.phase, done, total))

    def _seed(self, running: RoundState) -> int:
        return self._settings.base_seed + running.id

    def _provenance(self, running: RoundState) -> dict[str, Any]:
        """What it takes to do the phase again: a restart may continue a round with another version or config."""
        return {"seed": self._seed(running), "version": __version__, "config_digest": self._settings.config_digest}

    async def _training_prompts(self, running: RoundState) -> Sequence[Prompt]:
        """Fresh ones first, then those of earlier rounds that are asked again."""
        store, claims = self._parts.store, self._claims
        fresh = await store.claim_training(claims.training(running.id))
        return [*fresh, *await store.claim_rehearsal(claims.rehearsal(running.id))]

    async def _claim(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        store, claims = self._parts.store, self._claims
        fresh = await store.claim_training(claims.training(running.id))
        if missing := missing_training(len(fresh), claims) or await missing_held_out(store, claims):
            raise _Unfit(missing)
        # Hours of sampling and training would find out otherwise.
        await self._parts.fleet.check()
        prompts = await self._training_prompts(running)
        report = {"started_at": running.started_at, "reason": running.reason, "incumbent": running.incumbent}
        await asyncio.to_thread(self._parts.archive.update_report, running.id, report)
        rehearsed = len(prompts) - len(fresh)
        detail = f"{len(fresh)} prompts claimed" + (f", {rehearsed} of earlier rounds asked again" if rehearsed else "")
        return self._done(running, detail), {"prompts": len(fresh), "rehearsed": rehearsed}

    async def _sample(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        archive = self._parts.archive
        if await asyncio.to_thread(archive.has_completions, running.id):
            # By a try that ended before the journal knew.
            await asyncio.to_thread(archive.finish_sampling, running.id)
            return await self._sampled(running)
        prompts = await self._training_prompts(running)
        kept = {group.prompt_id for group in await asyncio.to_thread(archive.sampled_groups, running.id)}
        missing = [prompt for prompt in prompts if prompt.id not in kept]
        done = len(prompts) - len(missing)
        self._progressed(running, done, len(prompts))
        aids = await self._sampling_aids(running)
        sampling = self._parts.sampler.sample(missing, model=running.incumbent, seed=self._seed(running), aids=aids)
        async with aclosing(sampling) as sampled:
            async for group in sampled:
                await asyncio.to_thread(archive.append_group, running.id, group)
                done += 1
                self._progressed(running, done, len(prompts))
        groups = await asyncio.to_thread(archive.sampled_groups, running.id)
        if len(groups) < self._settings.min_groups:
            raise _Unfit(f"only {len(groups)} of {len(prompts)} prompts could be sampled")
        await asyncio.to_thread(archive.finish_sampling, running.id)
        return await self._sampled(running)

    async def _sampled(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        groups = await asyncio.to_thread(self._parts.archive.completions, running.id)
        meters = measure(groups)
        self._emit(SamplesMeasured(meters))
        return self._done(running, f"{len(groups)} groups sampled"), {**_sampling_numbers(groups), **meters}

    async def _sampling_aids(self, running: RoundState) -> SamplingAids:
        preview = self._parts.scorer.preview
        if not self._settings.shows_examples:
            return SamplingAids(preview=preview)
        book = await open_book(self._parts.archive, self._parts.store, before=running.id)
        return SamplingAids(book, preview)

    async def _score(self, running: RoundState) -> tuple[Event, dict[str, Any]]:
        archive, scorer = self._parts.archive, self._parts.scorer
        groups = await asyncio.to_thread(archive.completions, running.id)
        prompts = {prompt.id: prompt for prompt in await self._training_prompts(running)}

        def progress(done: int) -> None:
            self._progressed(running, done, len(groups))

        graded = await grade_all(scorer, groups, prompts, self._settings.sampling_limit, progress)
        scored = [each for each in graded if each is not None]
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
        own = await asyncio.to_thread(archive.scored_groups, running.id)
        carried, prompts = await self._carried(running, own)
        groups = (*own, *carried.groups)
        start = await asyncio.to_thread(adapters.get, running.incumbent) if running.incumbent else None
        job = TrainingJob(running.id, running.attempt, groups, start, self._seed(running))

        def progress(told: TrainingSignal) -> None:
            self._emit(told)
            if isinstance(told, TrainingStepped):
                self._progressed(running, told.step, told.steps)

        self._progressed(running, 0, 1)
        result = await self._trained(job, progress)
        trained = {scored.group.prompt_id for scored in groups}
        prompts += await self._training_prompts(running)
        sources = [prompt.source for prompt in prompts if prompt.id in trained]
        lineage = Lineage(
            round=running.id,
            parent=running.incumbent,
            base_model=self._settings.base_model,
            base_digest=result.base_digest,
            prompt_ids=tuple(scored.group.prompt_id for scored in groups),
            scorers=tuple(sorted({name for scored in groups for name in scored.scorers})),
            config_digest=self._settings.config_digest,
            offsets=_offset_ranges(sources),
            example_ids=tuple(sorted({name for scored in groups for name in scored.group.examples})),
            carried_from=carried.rounds,
        )
        record = await asyncio.to_thread(adapters.publish, result.directory, lineage, self._clock())
        numbers = {**result.metrics, "carried_groups": len(carried.groups), "carried_from": list(carried.rounds)}
        return self._done(running, f"{record.name} trained", candidate=record.name), numbers

    async def _carried(self, running: RoundState, own: Sequence[ScoredGroup]) -> tuple[Carried, list[Prompt]]:
        """Groups of refused rounds that train again, and their prompts."""

        def find() -> Carried:
            rounds = rounds_to_carry(self._parts.archive, running.id, most=self._settings.carried_rounds)
            return carried_groups(self._parts.archive, rounds, own)

        carried = await asyncio.to_thread(find)
        if not carried.groups:
            return carried, []
        prompts = await self._parts.store.read([scored.group.prompt_id for scored in carried.groups])
        return carried, list(prompts.values())

    async def _trained(self, job: TrainingJob, progress: Callable[[TrainingSignal], None]) -> TrainingResult:
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
        # Before any held-out prompt is used up: a server may refuse the candidate.
        served = await parts.fleet.serve(await asyncio.to_thread(parts.adapters.get, running.candidate))
        log.info("candidate is served for evaluation", extra={"adapter": running.candidate, "fingerprint": served})
        prompts = await parts.store.claim_held_out(self._claims.held_out(running.id))
        enough = len(prompts) >= self._settings.gate_min_prompts
        asked = prompts[: self._settings.divergence_prompts] if enough else ()
        far = await self._far(running, running.candidate, asked)
        evaluated = await parts.evaluator.evaluate(
            prompts,
            incumbent=running.incumbent,
            candidate=running.candidate,
            seed=self._seed(running),
            distance=far,
            progress=lambda done, total: self._progressed(running, done, total),
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

    async def _far(self, running: RoundState, candidate: str, prompts: Sequence[Prompt]) -> Mapping[str, float]:
        """How far the candidate went from the base, on answers of its own; nothing where no prompt is to be asked."""
        if not prompts:
            return {}
        parts, seed = self._parts, self._seed(running)
        groups = await parts.sampler.draw(prompts, model=candidate, seed=seed)
        if not groups:
            raise _Unfit(f"{candidate} answered none of {len(prompts)} prompts by which its distance is measured")
        base = await parts.sampler.draw(prompts, model=None, seed=seed)
        adapter = await asyncio.to_thread(parts.adapters.get, candidate)
        start = await asyncio.to_thread(parts.adapters.get, running.incumbent) if running.incumbent else None
        found = await parts.trainer.measure(DivergenceJob(running.id, running.attempt, tuple(groups), adapter, start))
        self._emit(DivergenceMeasured(found.from_start, found.from_base, found.entropy))
        return distance(found, groups, base)

    def _done(self, running: RoundState, detail: str, candidate: str | None = None) -> PhaseCompleted:
        return PhaseCompleted(running.id, running.attempt, running.phase, candidate, detail)


def _failed(running: RoundState, error: Exception, *, blameless: bool = False) -> PhaseFailed:
    return PhaseFailed(running.id, running.attempt, running.phase, str(error) or type(error).__name__, blameless)


def _offset_ranges(sources: Sequence[Source]) -> tuple[OffsetRange, ...]:
    """One range per partition, in order."""
    offsets: dict[tuple[str, int], list[int]] = {}
    for source in sources:
        offsets.setdefault((source.topic, source.partition), []).append(source.offset)
    return tuple(OffsetRange(*place, min(found), max(found)) for place, found in sorted(offsets.items()))


def _sampling_numbers(groups: Sequence[CompletionGroup]) -> dict[str, Any]:
    completions = [c for group in groups for c in group.completions]
    return {
        "groups": len(groups),
        "completions": len(completions),
        "tokens": sum(len(c.token_ids) for c in completions),
    }


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
