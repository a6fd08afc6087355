"""One pair of the shadow: both versions answer a live prompt, and a scorer compares. What it says, the machine judges.

Only what the candidate did may count against it. A server that is away, lacks the adapter or refuses us, and a scorer
that fails, say nothing.

both asked → scored → pair | unscored   (only the candidate silent: the incumbent again, then the candidate again)
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass

from tao_daemon.domain.completion import REFUSED, Answer
from tao_daemon.domain.errors import PassTimeout, TaoError, UpstreamError
from tao_daemon.domain.ports import Sampler, Scorer
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.rollout import ShadowPair

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unscored:
    """Nothing can be said about the candidate, and why, in words."""

    why: str
    is_prompts: bool = False
    """It may be the prompt's own: the server refuses it, or no scorer has a score for it."""


@dataclass(frozen=True, slots=True)
class _Silence:
    """A version gave no answer."""

    why: str
    is_refusal: bool = False
    """The server would not take the prompt, or what the version made of it."""
    is_denial: bool = False
    """A server lacks the version, or refuses us."""


class ShadowPairs:
    """Holds nothing between pairs."""

    def __init__(self, sampler: Sampler, scorer: Scorer) -> None:
        self._sampler = sampler
        self._scorer = scorer

    async def ask(self, prompt: Prompt, baseline: str | None, candidate: str) -> ShadowPair | Unscored:
        old, new = await asyncio.gather(self._answer(prompt, baseline), self._answer(prompt, candidate))
        if isinstance(old, _Silence):
            return Unscored(old.why, old.is_refusal)
        if isinstance(new, _Silence) and not new.is_denial:
            # An outage in between looks the same: only a server that still answers the other version tells.
            again = await self._answer(prompt, baseline)
            if isinstance(again, _Silence):
                return Unscored(again.why, again.is_refusal)
            # It may have come back only for that, and maybe without the adapter.
            new = new if new.is_refusal else await self._answer(prompt, candidate)
        if isinstance(new, _Silence):
            return Unscored(new.why) if new.is_denial else ShadowPair(prompt.id, -1.0, candidate_failed=True)
        return await self._compare(prompt, old, new)

    async def _compare(self, prompt: Prompt, old: Answer, new: Answer) -> ShadowPair | Unscored:
        try:
            before, after = await self._scorer.absolute(prompt, [old.text, new.text])
        except TaoError as error:
            log.warning("shadow pair not scored", extra={"prompt_id": prompt.id, "error": str(error)})
            return Unscored("a scorer's server is down")
        if before is None or after is None or not math.isfinite(before) or not math.isfinite(after):
            return Unscored("scorers gave no score", is_prompts=True)
        return ShadowPair(prompt.id, min(1.0, max(-1.0, after - before)))

    async def _answer(self, prompt: Prompt, model: str | None) -> Answer | _Silence:
        name = model or "the base model"
        try:
            (answer,) = await self._sampler.answer([prompt], model=model)
        except UpstreamError as error:
            if error.is_denial:
                return _Silence(f"a server lacks {name} or refuses us (HTTP {error.status})", is_denial=True)
            return _Silence(f"{name} does not answer")
        except PassTimeout:
            return _Silence(f"{name} does not answer in time")
        return _Silence(f"{name} does not answer", answer.finish_reason == REFUSED) if answer.is_none else answer
