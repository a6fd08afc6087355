"""Asks incumbent and candidate the same held-out prompts, scores every answer alone, and has the gate judge.

Scores are absolute (never ranks within a group). A prompt that the incumbent has no answer to, or that a scorer fails
on, is left out for both and counted; one that only the candidate has no answer to counts as 0 for it, so that no
candidate passes by breaking what it is asked. With too few prompts nothing is asked.
prompts → both answers, a batch at a time → scores → pairs → verdict
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

from tao_daemon.clients.bounded import together
from tao_daemon.config import Gate
from tao_daemon.domain.completion import Answer
from tao_daemon.domain.meters import is_refusal, is_repetitive
from tao_daemon.domain.ports import Sampler
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.report import Pair, Verdict
from tao_daemon.evaluation.gate import Limits, judge, too_few
from tao_daemon.evaluation.statistics import bootstrap_mean

BATCH_PROMPTS = 32
"""At most. Both models answer a batch before the next one: progress shows, and neither has a busier hour to itself."""

_log = logging.getLogger(__name__)


class AnswerScorer(Protocol):
    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """One score in [0, 1] per text, comparable between prompts; None where scoring failed."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A verdict and what it rests on. `answers` are for the round's archive only, and never printed."""

    verdict: Verdict
    pairs: tuple[Pair, ...] = ()
    answers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(incumbent, candidate) texts, in the order of `pairs`."""


class Evaluator:
    """Runs one gate at a time."""

    def __init__(self, sampler: Sampler, scorer: AnswerScorer, gate: Gate, *, remarks: Sequence[str] = ()) -> None:
        """`remarks` end the reasons of every verdict that scores were opened for."""
        self._remarks = tuple(remarks)
        self._sampler = sampler
        self._scorer = scorer
        self._limits = Limits(
            min_prompts=gate.min_prompts,
            confidence=gate.confidence,
            resamples=gate.resamples,
            min_differing_pairs=gate.min_differing_pairs,
            max_length_ratio=gate.max_length_ratio,
            max_truncation_increase=gate.max_truncation_increase,
            max_refusal_increase=gate.max_refusal_increase,
            max_degenerate_increase=gate.max_degenerate_increase,
            max_length_ratio_to_base=gate.max_length_ratio_to_base,
            max_kl_to_base_per_token=gate.max_kl_to_base_per_token,
        )

    async def evaluate(
        self,
        prompts: Sequence[Prompt],
        *,
        incumbent: str | None,
        candidate: str,
        seed: int,
        distance: Mapping[str, float],
        progress: Callable[[int, int], None],
    ) -> Evaluation:
        """Judge `candidate` against `incumbent` (None: the base model), and by its `distance` from the base.
        `progress` gets prompts done and in all. Raises UpstreamError when an answer cannot be had."""
        if (verdict := too_few(len(prompts), self._limits)) is not None:
            return Evaluation(verdict)
        found: list[tuple[Pair, tuple[str, str]]] = []
        done = broken = 0
        for batch in _batches(prompts):
            before = await self._sampler.answer(batch, model=incumbent)
            after = await self._sampler.answer(batch, model=candidate)
            asked = list(zip(batch, before, after, strict=True))
            pairs = await together(self._pair(*each) for each in asked)
            found += [
                (pair, (old.text, new.text))
                for pair, (_, old, new) in zip(pairs, asked, strict=True)
                if pair is not None
            ]
            broken += sum(pair is not None and new.is_none for pair, (_, _, new) in zip(pairs, asked, strict=True))
            done += len(batch)
            progress(done, len(prompts))
        judged = tuple(pair for pair, _ in found)
        texts = [answers for _, answers in found]

        def decide() -> Verdict:
            measured = {**_texts_measured(texts, self._limits, seed), **distance}
            return judge(judged, self._limits, available=len(prompts), seed=seed, measured=measured)

        # Some tenths of a second of arithmetic.
        verdict = await asyncio.to_thread(decide)
        remarks = [f"no answer of the candidate, counted as 0, to {broken} prompts"] if broken else []
        verdict = replace(verdict, reasons=(*verdict.reasons, *remarks, *self._remarks))
        return Evaluation(verdict, judged, tuple(texts for _, texts in found))

    async def _pair(self, prompt: Prompt, old: Answer, new: Answer) -> Pair | None:
        if old.is_none:
            _log.warning("held-out prompt without an answer", extra={"prompt_id": prompt.id})
            return None
        # Both, also where the candidate has none: a judge says nothing of a text alone.
        before, after = await self._scorer.absolute(prompt, [old.text, new.text])
        if new.is_none:
            _log.warning("held-out prompt without an answer of the candidate", extra={"prompt_id": prompt.id})
            after = 0.0
        if before is None or after is None:
            _log.warning("held-out prompt not scored", extra={"prompt_id": prompt.id})
            return None
        return Pair(
            prompt_id=prompt.id,
            incumbent_score=before,
            candidate_score=after,
            incumbent_tokens=old.completion_tokens,
            candidate_tokens=new.completion_tokens,
            incumbent_truncated=old.finish_reason == "length",
            candidate_truncated=new.finish_reason == "length",
        )


def _batches(prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    """As equal as can be: of a single prompt that fails nobody could tell whether the server fails."""
    count = math.ceil(len(prompts) / BATCH_PROMPTS)
    edges = [number * len(prompts) // count for number in range(count + 1)]
    return (prompts[start:end] for start, end in pairwise(edges))


def _texts_measured(answers: Sequence[tuple[str, str]], limits: Limits, seed: int) -> Mapping[str, float]:
    """How much more often the candidate refuses, or says nothing, than the incumbent; with lower bounds."""
    numbers: dict[str, float] = {}
    for name, is_such in (("refusal_increase", is_refusal), ("degenerate_increase", _is_degenerate)):
        differences = [float(is_such(new)) - float(is_such(old)) for old, new in answers]
        if differences:
            found = bootstrap_mean(
                differences,
                support=(-1.0, 1.0),
                confidence=limits.confidence,
                resamples=limits.resamples,
                seed=seed,
            )
            numbers |= {name: found.mean, f"{name}_low": found.percentile.low}
    return numbers


def _is_degenerate(text: str) -> bool:
    return not text.strip() or is_repetitive(text)
