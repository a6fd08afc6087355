"""Asks both versions of an open rollout live prompts, a few at a time, and posts what came of them.

While no pair can be scored it asks less and less, and what it asked returns to the pool: a server or a judge that is
away costs time and no prompts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao_daemon.daemon.shadow_pairs import ShadowPairs, Unscored
from tao_daemon.daemon.shadow_prompts import ShadowPrompts
from tao_daemon.daemon.state import State
from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.events import Event, ShadowScored
from tao_daemon.domain.ports import PromptStore, Sampler, Scorer
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.rollout import RolloutPhase, RolloutState, ShadowPair

log = logging.getLogger(__name__)

_STORE_SECONDS = 10.0
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 300.0
_WATCHED = (RolloutPhase.SHADOW, RolloutPhase.CANARY, RolloutPhase.BAKING)


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """The plain values it needs of the configuration."""

    pairs_max: int
    concurrency: int
    tenant_share: float


class Shadow:
    """`doing` says what it does, in words."""

    def __init__(
        self,
        store: PromptStore,
        sampler: Sampler,
        scorer: Scorer,
        settings: ShadowSettings,
        *,
        post: Callable[[Event], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._pairs = ShadowPairs(sampler, scorer)
        self._prompts = ShadowPrompts(
            store, limit=settings.concurrency, tenant_share=settings.tenant_share, judges=scorer.judges
        )
        self._pairs_max = settings.pairs_max
        self._post = post
        self._monotonic = monotonic
        self._failing = ""
        """The adapter of which no pair could be scored lately."""
        self._trouble, self._backoff, self._retry_at = "", 0.0, 0.0
        self.doing = "no rollout is watched"

    async def ask_some(self, state: State) -> bool:
        """Ask a few; whether there may be more at once."""
        rollout = watched(state)
        if rollout is None:
            self.doing = "no rollout is watched"
            return False
        if rollout.paused_by or rollout.evidence.shadow.pairs >= self._pairs_max:
            self.doing = "paused" if rollout.paused_by else "every pair it may ask for is there"
            return False
        if rollout.adapter == self._failing and self._monotonic() < self._retry_at:
            self.doing = self._trouble
            return False
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                prompts = await self._prompts.claim(rollout.adapter)
        except (TimeoutError, TaoError) as error:
            self._put_off(rollout, f"the buffer does not answer: {error or 'in time'}")
            return False
        if not prompts:
            given_up = f"; {self._prompts.given_up} cannot be scored" if self._prompts.given_up else ""
            self.doing = f"waits for live prompts that a scorer matches{given_up}"
            return False
        self.doing = "asks both versions live prompts"
        baseline = state.routes.previous if rollout.phase is RolloutPhase.BAKING else state.routes.adapter
        return await self._ask(prompts, baseline, rollout)

    async def _ask(self, prompts: Sequence[Prompt], baseline: str | None, rollout: RolloutState) -> bool:
        pairs = await asyncio.gather(*(self._pairs.ask(prompt, baseline, rollout.adapter) for prompt in prompts))
        found = tuple(pair for pair in pairs if isinstance(pair, ShadowPair))
        unscored = [(prompt, pair) for prompt, pair in zip(prompts, pairs, strict=True) if isinstance(pair, Unscored)]
        self._post(ShadowScored(rollout.adapter, rollout.phase, found, len(unscored)))
        # Where others were scored, servers and scorers were there.
        blamed = [prompt for prompt, pair in unscored if pair.is_prompts or found]
        await self._give_back([prompt for prompt, _ in unscored], blamed)
        if found:
            self._failing = ""
            return True
        self._put_off(rollout, f"no pair could be scored: {unscored[0][1].why}")
        return False

    async def _give_back(self, unscored: Sequence[Prompt], blamed: Sequence[Prompt]) -> None:
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self._prompts.give_back(unscored, blamed)
        except (TimeoutError, TaoError) as error:
            log.warning("shadow prompts return to the pool later", extra={"error": str(error) or "the buffer is slow"})

    def _put_off(self, rollout: RolloutState, trouble: str) -> None:
        """Twice as long as the last time, whatever nudges meanwhile; another rollout need not wait."""
        again = rollout.adapter == self._failing
        self._backoff = min(2.0 * self._backoff, _LONGEST_BACKOFF) if again else _FIRST_BACKOFF
        self._failing, self._retry_at = rollout.adapter, self._monotonic() + self._backoff
        self._trouble = self.doing = f"{trouble}; asks again after {self._backoff:g} s"


def watched(state: State) -> RolloutState | None:
    """The rollout of which there is evidence to gather."""
    rollout = state.rollout
    return rollout if rollout and rollout.phase in _WATCHED else None
