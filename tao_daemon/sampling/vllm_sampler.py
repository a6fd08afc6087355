"""Samples completions and answers from vLLM over HTTP.

What the server refuses, or cannot give after retries, is left out and counted; an outage ends the pass with
UpstreamError, and the groups that were yielded stand.
prompts → a few in flight → group by group, in the order they finish
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from tao_daemon.clients.bounded import as_finished
from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.config import Sampling
from tao_daemon.domain.completion import REFUSED, UNANSWERED, Answer, CompletionGroup
from tao_daemon.domain.errors import NothingSampled, PassTimeout, TaoError, UpstreamError
from tao_daemon.domain.ports import SamplingAids
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import Emit, discard
from tao_daemon.sampling.endpoints import Endpoints, ModelServer, is_refusal
from tao_daemon.sampling.lone_failures import Ask, Questions
from tao_daemon.sampling.pace import Pace, Unpaced
from tao_daemon.sampling.prompt_sampler import Lost, PromptSampler
from tao_daemon.sampling.requests import answer_body
from tao_daemon.sampling.responses import parse_answer

T = TypeVar("T")

OUTAGE_PROMPTS = 16
"""So many prompts in a row without a server, or as many as may be in flight, are an outage."""

ANSWER_SEED = 0
"""Both models of a gate answer under the same seed; it matters only above temperature 0."""

_PATIENT = RetryPolicy(attempts=6, patience_seconds=3600.0, first_pause_seconds=0.5, longest_pause_seconds=10.0)
"""Some 15 seconds of pauses; an answer may take minutes before it fails, and is still worth asking again."""


class VllmSampler:
    """Implements `Sampler`. Use from one event loop; holds no connection of its own."""

    def __init__(
        self,
        servers: Sequence[ModelServer],
        config: Sampling,
        *,
        base_model: str,
        answer_temperature: float,
        min_spread: float,
        retry: RetryPolicy = _PATIENT,
        pace: Pace | None = None,
        emit: Emit = discard,
    ) -> None:
        """`base_model` is the server's name for the model without an adapter; rewards of a prompt that differ by less
        than `min_spread` teach nothing; `pace` spares live requests."""
        self._endpoints = Endpoints(
            servers,
            max_waiting_requests=config.max_waiting_requests,
            timeout_seconds=config.timeout_seconds,
            retry=retry,
            pace=pace or Unpaced(),
        )
        self._prompts = PromptSampler(self._endpoints, config, min_spread=min_spread, emit=emit)
        self._config = config
        self._outage_prompts = min(config.concurrent_prompts, OUTAGE_PROMPTS)
        self._base_model = base_model
        self._answer_temperature = answer_temperature

    async def sample(
        self, prompts: Sequence[Prompt], *, model: str | None, seed: int, aids: SamplingAids
    ) -> AsyncGenerator[CompletionGroup, None]:
        """Groups in the order they finish. Raises PassTimeout at the deadline of the pass, UpstreamError when
        OUTAGE_PROMPTS in a row found no server, and NothingSampled when the server refused the whole pass (a few
        refused prompts, left over from an interrupted pass, are not enough to say so)."""
        groups, outage, last = 0, 0, Lost(None)
        jobs = (self._prompts.group(prompt, model or self._base_model, seed, aids) for prompt in prompts)
        async with aclosing(self._pass(jobs, len(prompts))) as results:
            async for result in results:
                if isinstance(result, CompletionGroup):
                    groups, outage = groups + 1, 0
                    yield result
                    continue
                last, outage = result, outage + 1 if result.is_outage else 0
                if outage >= self._outage_prompts:
                    raise _outage(outage, result.error)
        if prompts and not groups and (last.is_outage or len(prompts) >= self._outage_prompts):
            raise _all_lost(len(prompts), last)

    async def draw(self, prompts: Sequence[Prompt], *, model: str | None, seed: int) -> Sequence[CompletionGroup]:
        """In the order of the prompts; those that are refused, that alone find no answer, or whose completion cannot be
        used are left out. Raises UpstreamError for an outage: what is measured on them must not depend on which server
        was down."""
        name = model or self._base_model
        drawn = await self._every(len(prompts), lambda place: self._prompts.draw(prompts[place], name, seed))
        return [group for _, group in sorted(drawn.items()) if group is not None]

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        """Answers in order. One that the server refuses has the finish reason `REFUSED`, one that failed twice while
        the server answered others `UNANSWERED`. An outage raises UpstreamError, or PassTimeout, so that it is never
        taken for bad answers."""
        name = model or self._base_model
        answers = await self._every(len(prompts), lambda place: self._answer(prompts[place], name))
        missing = Answer("", 0, UNANSWERED)
        return [answers.get(place, missing) or Answer("", 0, REFUSED) for place in range(len(prompts))]

    async def _every(self, count: int, ask: Ask[T]) -> Mapping[int, T | None]:
        return await Questions(count, ask, self._pass, outage=self._outage_prompts).answered()

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
            raise PassTimeout(
                f"{total - done} of {total} prompts had no answer within sampling.phase_timeout_seconds "
                f"({limit:g} s); raise it, or ask for fewer prompts"
            ) from None

    async def _answer(self, prompt: Prompt, model: str) -> Answer | None:
        """None for a prompt that is refused."""
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
            self._prompts.lose("refused" if is_refusal(error) else "unavailable", 1, prompt, error.status)
            if not is_refusal(error):
                raise
            return None
        if answer is None:
            self._prompts.lose("malformed", 1, prompt)
            raise UpstreamError(f"the model server gave no single finished answer to prompt {prompt.id}")
        return answer


def _outage(prompts: int, error: UpstreamError | None) -> UpstreamError:
    status = error.status if error else None
    return UpstreamError(
        f"no model server answered {prompts} prompts in a row (last status: {status}); "
        "check serving.replicas or sampling.endpoint, and that the adapter is loaded",
        status,
    )


def _all_lost(prompts: int, last: Lost) -> TaoError:
    """An outage may pass; what the server refuses, or does not know, it will refuse again."""
    if last.error is None:
        return NothingSampled(
            f"none of {prompts} prompts got completions with matching token ids and log-probabilities; "
            "the server must be vLLM 0.32 or later, which knows return_token_ids"
        )
    said = f"none of {prompts} prompts got completions (last status: {last.error.status}); see the model server's log"
    return (
        UpstreamError(said, last.error.status) if last.is_outage else NothingSampled(f"{said} for why it refused them")
    )
