"""Samples completions and answers from vLLM over HTTP.

A prompt is asked plainly and under every strategy that matches it, all at once; its group carries the token
ids of the *plain* prompt. What the server refuses, or cannot give after retries, is left out and counted; an
outage ends the pass with UpstreamError, and the groups that were yielded stand.
prompts → a few in flight → group by group, in the order they finish
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.config import Sampling
from tao_daemon.domain.completion import PLAIN, REFUSED, Answer, CompletionGroup
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import CompletionsSampled, Emit, SamplesLost, discard
from tao_daemon.sampling.bounded import as_finished
from tao_daemon.sampling.endpoints import Endpoints, ModelServer, is_refusal
from tao_daemon.sampling.pace import Pace, Unpaced
from tao_daemon.sampling.requests import answer_body, sampling_body, seed_for, with_instruction
from tao_daemon.sampling.responses import Parsed, parse_answer, parse_completions

T = TypeVar("T")

ANSWER_SEED = 0
"""Both models of a gate answer under the same seed; it matters only above temperature 0."""

_PATIENT = RetryPolicy(attempts=6, patience_seconds=3600.0, first_pause_seconds=0.5, longest_pause_seconds=10.0)
"""Some 15 seconds of pauses; an answer may take minutes before it fails, and is still worth asking again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request for completions of a prompt under one strategy."""

    strategy: str
    first_index: int
    completions: int
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Lost:
    """A prompt without a group, and why."""

    error: UpstreamError | None
    """None when the server's answer made no sense."""

    @property
    def is_outage(self) -> bool:
        return self.error is not None and not is_refusal(self.error)


class VllmSampler:
    """Implements `Sampler`. Use from one event loop; holds no connection of its own."""

    def __init__(
        self,
        servers: Sequence[ModelServer],
        config: Sampling,
        *,
        base_model: str,
        answer_temperature: float,
        retry: RetryPolicy = _PATIENT,
        pace: Pace | None = None,
        emit: Emit = discard,
    ) -> None:
        """`base_model` is the server's name for the model without an adapter; `pace` spares live requests."""
        self._endpoints = Endpoints(
            servers,
            max_waiting_requests=config.max_waiting_requests,
            timeout_seconds=config.timeout_seconds,
            retry=retry,
            pace=pace or Unpaced(),
        )
        self._config = config
        self._base_model = base_model
        self._answer_temperature = answer_temperature
        self._emit = emit

    async def sample(
        self, prompts: Sequence[Prompt], *, model: str | None, seed: int
    ) -> AsyncIterator[CompletionGroup]:
        """Groups in the order they finish. Raises UpstreamError at the deadline of the pass, when as many
        prompts in a row as may be in flight found no server, or when the whole pass gave nothing (a few
        refused prompts, left over from an interrupted pass, are not enough to say so)."""
        groups, outage, last = 0, 0, _Lost(None)
        jobs = (self._group(prompt, model or self._base_model, seed) for prompt in prompts)
        async with aclosing(self._pass(jobs, len(prompts))) as results:
            async for result in results:
                if isinstance(result, CompletionGroup):
                    groups, outage = groups + 1, 0
                    yield result
                    continue
                last, outage = result, outage + 1 if result.is_outage else 0
                if outage >= self._config.concurrent_prompts:
                    raise _outage(outage, result.error)
        if prompts and not groups and (last.is_outage or len(prompts) >= self._config.concurrent_prompts):
            raise _all_lost(len(prompts), last)

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        """Answers in order. One that the server refuses has the finish reason `REFUSED`; any other failure
        raises UpstreamError, so that a missing answer is never taken for a bad one."""
        answers: dict[int, Answer] = {}
        jobs = (self._answer(place, prompt, model or self._base_model) for place, prompt in enumerate(prompts))
        async with aclosing(self._pass(jobs, len(prompts))) as results:
            async for place, answer in results:
                answers[place] = answer
        return [answers[place] for place in range(len(prompts))]

    async def _pass(self, jobs: Iterator[Coroutine[Any, Any, T]], total: int) -> AsyncGenerator[T, None]:
        """Run jobs, `concurrent_prompts` at a time, until the deadline of a whole pass."""
        limit = self._config.phase_timeout_seconds
        finished = as_finished(
            jobs, limit=self._config.concurrent_prompts, deadline=asyncio.get_running_loop().time() + limit
        )
        done = 0
        try:
            async with aclosing(finished):
                async for result in finished:
                    done += 1
                    yield result
        except TimeoutError:
            raise UpstreamTimeout(
                f"{total - done} of {total} prompts had no answer within sampling.phase_timeout_seconds "
                f"({limit:g} s); raise it, or ask for fewer prompts"
            ) from None

    async def _group(self, prompt: Prompt, model: str, seed: int) -> CompletionGroup | _Lost:
        asks, started = self._asks(prompt), asyncio.get_running_loop().time()
        plain, *others = await asyncio.gather(*(self._completions(prompt, ask, model, seed) for ask in asks))
        if isinstance(plain, UpstreamError) or not plain.completions:
            return _Lost(plain if isinstance(plain, UpstreamError) else None)
        parsed = [plain, *(other for other in others if isinstance(other, Parsed))]
        completions = tuple(completion for part in parsed for completion in part.completions)
        counts = Counter(completion.strategy for completion in completions)
        tokens = sum(len(completion.token_ids) for completion in completions)
        seconds = asyncio.get_running_loop().time() - started
        self._emit(CompletionsSampled(tuple(sorted(counts.items())), tokens, seconds))
        return CompletionGroup(prompt.id, plain.prompt_token_ids, completions)

    def _asks(self, prompt: Prompt) -> list[_Ask]:
        """The plain request first, then one per strategy that matches."""
        asks = [_Ask(PLAIN, 0, self._config.completions, prompt.request)]
        index = self._config.completions
        for strategy in self._config.strategies:
            request = with_instruction(prompt.request, strategy.instruction)
            if request is not None and strategy.match_system_sha256 in (None, prompt.system_digest):
                asks.append(_Ask(strategy.name, index, strategy.completions, request))
                index += strategy.completions
        return asks

    async def _completions(self, prompt: Prompt, ask: _Ask, model: str, seed: int) -> Parsed | UpstreamError:
        body = sampling_body(
            ask.request,
            model=model,
            completions=ask.completions,
            max_tokens=self._config.max_tokens,
            seed=seed_for(seed, prompt.id, ask.strategy),
        )
        try:
            response = await self._endpoints.call(body)
        except UpstreamError as error:
            self._lose("refused" if is_refusal(error) else "unavailable", 1, prompt, error.status)
            return error
        parsed = parse_completions(
            response, expected=ask.completions, strategy=ask.strategy, first_index=ask.first_index
        )
        if parsed.malformed:
            self._lose("malformed", parsed.malformed, prompt, None)
        return parsed

    async def _answer(self, place: int, prompt: Prompt, model: str) -> tuple[int, Answer]:
        body = answer_body(
            prompt.request,
            model=model,
            max_tokens=self._config.max_tokens,
            temperature=self._answer_temperature,
            seed=ANSWER_SEED,
        )
        try:
            answer = parse_answer(await self._endpoints.call(body))
        except UpstreamError as error:
            if not is_refusal(error):
                raise
            self._lose("refused", 1, prompt, error.status)
            return place, Answer("", 0, REFUSED)
        if answer is None:
            raise UpstreamError(f"the model server gave no single finished answer to prompt {prompt.id}")
        return place, answer

    def _lose(self, kind: str, count: int, prompt: Prompt, status: int | None) -> None:
        self._emit(SamplesLost(kind, count))
        _log.warning("samples lost", extra={"kind": kind, "count": count, "prompt_id": prompt.id, "status": status})


def _outage(prompts: int, error: UpstreamError | None) -> UpstreamError:
    status = error.status if error else None
    return UpstreamError(
        f"no model server answered {prompts} prompts in a row (last status: {status}); "
        "check serving.replicas or sampling.endpoint, and that the adapter is loaded",
        status,
    )


def _all_lost(prompts: int, last: _Lost) -> UpstreamError:
    if last.error is None:
        return UpstreamError(
            f"none of {prompts} prompts got completions with matching token ids and log-probabilities; "
            "the server must be vLLM 0.32 or later, which knows return_token_ids"
        )
    return UpstreamError(
        f"none of {prompts} prompts got completions (last status: {last.error.status}); "
        "see the model server's log for why it refused them",
        last.error.status,
    )
