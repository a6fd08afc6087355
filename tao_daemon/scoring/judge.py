"""A language model ranks the completions of a prompt, in two orders.

Implements `Grader` over any OpenAI-compatible server. How it is asked and what its replies mean is in `judging`,
what it is not shown and what is planted in `decoys`. While a judge is not trusted, only prompts that get a planted
answer are put to it, until enough of those say otherwise; all of its scores are failures meanwhile. What it is
trusted by lives as long as the process. So does what it said of the last sheets: a phase that begins again, because
another scorer's server was away, neither pays for them nor counts their planted answers twice.

prompt and texts → sheet → every question asked, unreadable replies again → rankings → scores | one failure for all
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tao_daemon.clients.scoring_server import REFUSALS, ChatReply, Exchange, ScoringServer
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import DecoysJudged, Emit, ScorerAsked
from tao_daemon.scoring.decoys import Trust, decoy_for, is_blank, is_degenerate
from tao_daemon.scoring.judging import (
    Question,
    Ranking,
    Sheet,
    instructions,
    is_fooled,
    parsed,
    questions,
    reply_format,
    scores,
)
from tao_daemon.scoring.verifier import NO_ANSWER, Failure, Score

_DIALECTS = (("response_format", "temperature"), ("response_format",), ("temperature",), ())
"""What of the optional a request asks for: servers that refuse one are asked without, and then always."""

REMEMBERED = 4_096
"""Sheets whose rankings are kept: more than a phase has."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Plain values of a `[[scorers]]` entry of type judge."""

    name: str
    model: str
    rubric: str
    timeout_seconds: float
    """Deadline of one request."""
    attempts: int
    concurrent_requests: int
    decoy_fraction: float
    max_fooled: float
    price_input: float
    price_output: float
    max_characters: int
    """Of request and answers together, in one question."""
    reply_tokens: int


class Judge:
    """Implements `Grader`."""

    is_free = False
    is_absolute = True

    def __init__(self, settings: JudgeSettings, server: ScoringServer, emit: Emit) -> None:
        self._settings = settings
        self._server = server
        self._emit = emit
        self._turns = asyncio.Semaphore(settings.concurrent_requests)
        self._trust = Trust(settings.max_fooled)
        self._dialect: int | None = None
        """The fullest that the server ever answered: what it refuses in this one is the question. None before."""
        self._unanswered = 0
        self._known: dict[bytes, list[Ranking]] = {}
        """By `_digest`, the latest last."""

    @property
    def unanswered(self) -> int:
        return self._unanswered

    def applies(self, prompt: Prompt) -> bool:
        return True

    async def grade(self, prompt: Prompt, texts: Sequence[str]) -> list[Score]:
        """The share of the other completions that each is better than; see `judging.scores`."""
        # What a demanded form allows may look like nothing: [], "", 0.
        sheet = Sheet.of(texts, is_blank if prompt.request.get("response_format") else is_degenerate)
        if len(sheet.answers) < 2:
            return [*scores(sheet, ())]
        decoy = decoy_for(prompt.id, self._settings.decoy_fraction)
        if decoy in sheet.answers:
            decoy = None  # which of the two it prefers would say nothing
        if decoy is None and not self._trust.holds:
            return [Failure.UNTRUSTED] * len(texts)
        key = _digest(prompt.id, sheet.answers)
        found = self._known.get(key) or await self._rankings(prompt, sheet, decoy)
        if isinstance(found, Failure):
            return [found] * len(texts)
        if key not in self._known:
            self._remember(key, found)
            if decoy is not None:
                self._learn(is_fooled(found))
        return [*scores(sheet, found)] if self._trust.holds else [Failure.UNTRUSTED] * len(texts)

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> list[Score] | None:
        """Of two: 1 and 0 where both orders agree, one half each where not. None for a text alone."""
        return await self.grade(prompt, texts) if len(texts) > 1 else None

    async def close(self) -> None:
        """The session is the caller's."""

    async def _rankings(self, prompt: Prompt, sheet: Sheet, decoy: str | None) -> list[Ranking] | Failure:
        """Of every question about the sheet, or the first failure."""
        asked = [question for pair in questions(sheet, seed=prompt.id, decoy=decoy) for question in pair]
        rankings = await asyncio.gather(*[self._ranking(prompt, question) for question in asked])
        unanswered = all(ranking in NO_ANSWER for ranking in rankings)
        self._unanswered = self._unanswered + 1 if unanswered else 0
        failures = [ranking for ranking in rankings if isinstance(ranking, Failure)]
        return failures[0] if failures else [ranking for ranking in rankings if isinstance(ranking, Ranking)]

    def _remember(self, key: bytes, found: list[Ranking]) -> None:
        self._known[key] = found
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    async def _ranking(self, prompt: Prompt, question: Question) -> Ranking | Failure:
        told = ""
        for _ in range(self._settings.attempts):
            text = instructions(
                prompt.request,
                question,
                rubric=self._settings.rubric,
                characters=self._settings.max_characters,
                told=told,
            )
            try:
                reply = await self._reply(text, question)
            except UpstreamTimeout:
                return Failure.TIMEOUT
            except UpstreamError as error:
                _log.warning("judge not asked", extra={"scorer": self._settings.name, "error": str(error)})
                return Failure.ERROR if error.status in REFUSALS else Failure.UNAVAILABLE
            ranking = parsed(reply.text, question)
            self._tell("ok" if isinstance(ranking, Ranking) else "unreadable", reply.exchange)
            if isinstance(ranking, Ranking):
                return ranking
            told = ranking
        return Failure.UNREADABLE

    async def _reply(self, text: str, question: Question) -> ChatReply:
        async with self._turns:
            dialect = 0 if self._dialect is None else self._dialect
            while True:
                body = self._body(text, question, dialect)
                try:
                    reply = await self._server.chat(body, self._settings.timeout_seconds, self._failed)
                except UpstreamError as error:
                    # One that was refused in all dialects says nothing of them: it changes nothing for the others.
                    if error.status not in REFUSALS or self._dialect is not None or dialect == len(_DIALECTS) - 1:
                        raise
                    dialect += 1
                else:
                    self._dialect = dialect if self._dialect is None else min(dialect, self._dialect)
                    return reply

    def _body(self, text: str, question: Question, dialect: int) -> dict[str, Any]:
        optional = {"response_format": reply_format(question), "temperature": 0.0}
        return {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": text}],
            "max_completion_tokens": self._settings.reply_tokens,
            **{key: optional[key] for key in _DIALECTS[dialect]},
        }

    def _learn(self, fooled: bool) -> None:
        before, self._trust = self._trust, self._trust.after([fooled])
        self._emit(DecoysJudged(self._settings.name, planted=1, fooled=int(fooled)))
        if self._trust.holds != before.holds:
            message = "judge is trusted again" if self._trust.holds else "judge is not trusted: it can be fooled"
            last = (*before.fooled, fooled)
            extra = {"scorer": self._settings.name, "planted": len(last), "fooled": sum(last)}
            _log.warning(message, extra=extra)

    def _failed(self, exchange: Exchange) -> None:
        self._tell("failed", exchange)

    def _tell(self, outcome: str, exchange: Exchange) -> None:
        settings = self._settings
        cost = exchange.prompt_tokens * settings.price_input + exchange.completion_tokens * settings.price_output
        self._emit(
            ScorerAsked(
                settings.name,
                outcome,
                exchange.seconds,
                exchange.prompt_tokens,
                exchange.completion_tokens,
                cost / 1e6,
            )
        )


def _digest(prompt_id: str, answers: Sequence[str]) -> bytes:
    return hashlib.blake2b(json.dumps([prompt_id, *answers]).encode(), digest_size=16).digest()
