"""All completions of one prompt: plain ones in waves, exploration beside the first, extracted answers made tokens.

The group carries the token ids of the *plain* prompt. What the server refuses is left out and counted; without a first
plain completion, or when an outage took any part, there is no group: a short one would pass for all there is to learn.
first plain wave and strategies → answers extracted → rewards previewed → more plain ones, or none → group | Lost
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from tao_daemon.clients.bounded import together
from tao_daemon.config import Sampling
from tao_daemon.domain.completion import CUT_OFF, Completion, CompletionGroup, is_cut_by_client
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.ports import Preview, SamplingAids
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import CompletionsSampled, Emit, SamplesLost
from tao_daemon.sampling.asks import Ask, Asks
from tao_daemon.sampling.budget import Budget
from tao_daemon.sampling.endpoints import Endpoints, is_refusal
from tao_daemon.sampling.extracted import answer_tokens, is_sayable, tokenize_body
from tao_daemon.sampling.requests import length_limit, sampling_body, seed_for
from tao_daemon.sampling.responses import Parsed, parse_completions

_ENDED = "stop"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost:
    """A prompt without a group, and why."""

    error: UpstreamError | None
    """None when the server's answer made no sense."""

    @property
    def is_outage(self) -> bool:
        return self.error is not None and not is_refusal(self.error)


@dataclass(slots=True)
class _Work:
    """One prompt while it is asked."""

    prompt: Prompt
    model: str
    seed: int
    asked: int = 0
    """Completions asked for so far, of all strategies: the next request's indices begin here."""
    asked_plain: int = 0
    tokens: int = 0
    """Sampled for it so far, also where only the answer at their end is kept."""
    prompt_token_ids: tuple[int, ...] = ()
    end_tokens: frozenset[int] = frozenset()
    completions: list[Completion] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


class PromptSampler:
    """Use from one event loop; holds nothing between prompts."""

    def __init__(self, endpoints: Endpoints, config: Sampling, *, min_spread: float, emit: Emit) -> None:
        """`min_spread`: rewards that differ by less teach nothing. Raises ValueError for a strategy's bad file."""
        self._endpoints = endpoints
        self._asks = Asks(config)
        self._max_tokens = config.max_tokens
        self._budget = Budget(config.first_completions, config.completions, config.most_completions, min_spread)
        self._emit = emit

    async def group(self, prompt: Prompt, model: str, seed: int, aids: SamplingAids) -> CompletionGroup | Lost:
        """The group, deterministic for a seed as far as the server and the rewards are."""
        started = asyncio.get_running_loop().time()
        work = _Work(prompt, model, seed)
        opening = self._budget.opening(previewed=aids.preview is not None)
        plain = self._asks.plain(prompt, opening)
        lost = await self._ask(work, plain, self._asks.exploring(prompt, aids.examples))
        if lost is None and self._budget.first and aids.preview is not None:
            lost = await self._spend(work, aids.preview)
        if lost is not None:
            return lost
        self._tell(work, asyncio.get_running_loop().time() - started)
        examples = tuple(dict.fromkeys(work.examples))
        return CompletionGroup(prompt.id, work.prompt_token_ids, tuple(work.completions), examples)

    async def draw(self, prompt: Prompt, model: str, seed: int) -> CompletionGroup | None:
        """One plain completion; None where it cannot be used, or is refused. Raises UpstreamError."""
        work = _Work(prompt, model, seed)
        lost = await self._ask(work, self._asks.plain(prompt, 1), [])
        if lost is None:
            return CompletionGroup(prompt.id, work.prompt_token_ids, tuple(work.completions))
        if lost.error is not None and lost.is_outage:
            raise lost.error
        return None

    def lose(self, kind: str, count: int, prompt: Prompt, status: int | None = None) -> None:
        self._emit(SamplesLost(kind, count))
        _log.warning("samples lost", extra={"kind": kind, "count": count, "prompt_id": prompt.id, "status": status})

    async def _ask(self, work: _Work, plain: Ask, exploring: Sequence[Ask]) -> Lost | None:
        """Ask all at once and keep what can be used; Lost when the plain request gave nothing, or any met an outage."""
        asks = [plain, *exploring]
        firsts = accumulate((ask.completions for ask in asks), initial=work.asked)
        results = await together(self._request(work, ask, first) for ask, first in zip(asks, firsts, strict=False))
        work.asked += sum(ask.completions for ask in asks)
        work.asked_plain += plain.completions
        parsed = results[0]
        if isinstance(parsed, UpstreamError) or not parsed.completions:
            return Lost(parsed if isinstance(parsed, UpstreamError) else None)
        for result in results:
            if isinstance(result, UpstreamError) and not is_refusal(result):
                return Lost(result)
        work.prompt_token_ids = parsed.prompt_token_ids
        work.end_tokens |= parsed.end_tokens
        for ask, result in zip(asks, results, strict=True):
            if isinstance(result, Parsed):
                work.tokens += sum(len(completion.token_ids) for completion in result.completions)
                try:
                    work.completions += await self._answers(work, ask, result) if ask.extract else result.completions
                except UpstreamError as error:
                    self.lose("unavailable", 1, work.prompt, error.status)
                    return Lost(error)
                work.examples += ask.examples
        return None

    async def _request(self, work: _Work, ask: Ask, first_index: int) -> Parsed | UpstreamError:
        body = sampling_body(
            ask.request,
            model=work.model,
            completions=ask.completions,
            max_tokens=ask.max_tokens,
            seed=seed_for(work.seed, work.prompt.id, ask.seed_key),
            shaping=ask.shaping,
        )
        try:
            response = await self._endpoints.call(body)
        except UpstreamError as error:
            self.lose("refused" if is_refusal(error) else "unavailable", 1, work.prompt, error.status)
            return error
        parsed = parse_completions(response, expected=ask.completions, strategy=ask.strategy, first_index=first_index)
        if parsed.malformed:
            self.lose("malformed", parsed.malformed, work.prompt)
        return parsed

    async def _spend(self, work: _Work, preview: Preview) -> Lost | None:
        """Ask for more plain completions as long as they are worth it; Lost when an outage kept them away."""
        by_client = is_cut_by_client(work.prompt.request, self._max_tokens)
        while work.asked_plain < self._budget.limit:
            rewards = await preview(work.prompt, [completion.text for completion in work.completions])
            settled = None if rewards is None else _settled(rewards, work.completions, by_client)
            if not (more := self._budget.more(work.asked_plain, settled)):
                break
            lost = await self._ask(work, self._asks.plain(work.prompt, more, before=work.asked_plain), [])
            # What is refused, or makes no sense, is counted; the group stands with what it has.
            if lost is not None and lost.is_outage:
                return lost
        return None

    async def _answers(self, work: _Work, ask: Ask, parsed: Parsed) -> list[Completion]:
        """The answers in the completions, as completions of the plain prompt. Raises UpstreamError in an outage."""
        assert ask.extract is not None
        ended = [each for each in parsed.completions if each.finish_reason == _ENDED]
        texts = await asyncio.to_thread(lambda: [ask.extract(each.text) for each in ended])  # type: ignore[misc]
        stop = work.prompt.request.get("stop")
        found = [(each, text) for each, text in zip(ended, texts, strict=True) if text and is_sayable(text, stop)]
        tokens = await self._tokens(work, sorted({text for _, text in found}), work.end_tokens | parsed.end_tokens)
        kept = [
            replace(each, text=text, token_ids=ids, logprobs=(), extracted=True)
            for each, text in found
            if (ids := tokens[text]) is not None
        ]
        for kind, count in (("no_answer", len(parsed.completions) - len(found)), ("no_tokens", len(found) - len(kept))):
            if count:
                self.lose(kind, count, work.prompt)
        return kept

    async def _tokens(
        self, work: _Work, answers: Sequence[str], ends: frozenset[int]
    ) -> dict[str, tuple[int, ...] | None]:
        request = work.prompt.request
        limit = length_limit(request, self._max_tokens)

        async def tokens(answer: str) -> tuple[int, ...] | None:
            try:
                conversation = await self._endpoints.tokenize(tokenize_body(request, model=work.model, answer=answer))
            except UpstreamError as error:
                # A server without the route, or that will not tell, says so for good.
                if not is_refusal(error) and not error.is_denial:
                    raise
                return None
            return answer_tokens(work.prompt_token_ids, conversation, ends, limit)

        return dict(zip(answers, await together(map(tokens, answers)), strict=True))

    def _tell(self, work: _Work, seconds: float) -> None:
        counts = Counter(completion.strategy for completion in work.completions)
        beyond = work.asked_plain - self._budget.usual
        self._emit(
            CompletionsSampled(
                tuple(sorted(counts.items())),
                work.tokens,
                seconds,
                spared=max(0, -beyond),
                added=max(0, beyond),
            )
        )


def _settled(
    rewards: Sequence[float | None], completions: Sequence[Completion], by_client: bool
) -> list[tuple[float | None, bool]]:
    """Rewards as they stand in the end, and whether each is a plain completion's: cut off by the client's limit an
    answer is worth nothing; cut off by ours alone it will be left out, and says nothing."""
    return [
        (0.0 if completion.finish_reason == CUT_OFF else reward, completion.is_plain)
        for reward, completion in zip(rewards, completions, strict=True)
        if by_client or completion.finish_reason != CUT_OFF
    ]
