"""Gathers the evidence of an open rollout and posts it: looks at the traffic, and asks both versions live prompts.

The two go on side by side, so that a buffer or a model server that does not answer never keeps a regression in the
gateways' counters from being seen. What it posts decides nothing: the machine does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao_daemon.daemon.rollouts import measured
from tao_daemon.daemon.shadow_pairs import ShadowPairs
from tao_daemon.daemon.state import Policy, State
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.events import Event, ShadowScored, TrafficMeasured
from tao_daemon.domain.ports import Clock, PromptStore, Sampler, Scorer
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.rollout import RolloutPhase, RolloutState, ShadowPair

log = logging.getLogger(__name__)

_STORE_SECONDS = 10.0
_JOURNAL_SECONDS = 30.0
"""A hold whose words change in their numbers alone is journaled this often."""
_SLOW_QUANTILE = 0.95
_WATCHED = (RolloutPhase.SHADOW, RolloutPhase.CANARY, RolloutPhase.BAKING)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """The plain values it needs of the configuration."""

    evaluate_seconds: float
    shadow_pairs_max: int
    shadow_concurrency: int
    tenant_share: float


class RolloutWatch:
    """Runs until cancelled. `shadowing` says what the shadow does, in words."""

    def __init__(
        self,
        board: TrafficBoard,
        store: PromptStore,
        sampler: Sampler,
        scorer: Scorer,
        settings: WatchSettings,
        *,
        policy: Policy,
        state: Callable[[], State],
        post: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._board = board
        self._store = store
        self._scorer = scorer
        self._pairs = ShadowPairs(sampler, scorer)
        self._settings = settings
        self._policy = policy
        self._state = state
        self._post = post
        self._clock = clock
        self._changed = asyncio.Event()
        self._posted: tuple[float, str] = (-math.inf, "")
        self.shadowing = "no rollout is watched"

    def nudge(self) -> None:
        """The state changed: look at once."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_again_and_again())
            group.create_task(self._shadow_again_and_again())

    async def _look_again_and_again(self) -> None:
        while True:
            self._look()
            await self._pause()

    async def _shadow_again_and_again(self) -> None:
        while True:
            if not await self._shadow_some():
                await self._pause()

    async def _pause(self) -> None:
        """Until the next look is due, or the state changed."""
        changed = self._changed
        try:
            async with asyncio.timeout(self._settings.evaluate_seconds):
                await changed.wait()
        except TimeoutError:
            return

    def _look(self) -> None:
        """Post what the gateways counted, when that moves something or is worth remembering."""
        state = self._state()
        rollout = _watched(state)
        if rollout is None:
            return
        counts = self._board.counts(rollout.evidence.steps)
        event = TrafficMeasured(rollout.adapter, counts, self._board.duration(_SLOW_QUANTILE))
        after = measured(event, state, self._policy, self._clock()).state.rollout
        assert after is not None
        gist = f"{after.phase} {after.step} {re.sub('[0-9.]+', '#', after.hold)}"
        now = self._clock()
        moved = (after.phase, after.step) != (rollout.phase, rollout.step)
        if moved or gist != self._posted[1] or (after != rollout and now - self._posted[0] >= _JOURNAL_SECONDS):
            self._posted = (now, gist)
            self._post(event)

    async def _shadow_some(self) -> bool:
        """Ask both versions a few live prompts; whether there may be more at once."""
        state = self._state()
        rollout = _watched(state)
        if rollout is None:
            self.shadowing = "no rollout is watched"
            return False
        if rollout.paused_by or rollout.evidence.shadow.pairs >= self._settings.shadow_pairs_max:
            self.shadowing = "paused" if rollout.paused_by else "every pair it may ask for is there"
            return False
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                prompts = await self._claim()
        except (TimeoutError, TaoError) as error:
            self.shadowing = f"the buffer does not answer: {error or 'in time'}"
            return False
        if not prompts:
            self.shadowing = "waits for live prompts that a scorer matches"
            return False
        self.shadowing = "asks both versions live prompts"
        baseline = state.routes.previous if rollout.phase is RolloutPhase.BAKING else state.routes.adapter
        pairs = await asyncio.gather(*(self._pairs.ask(prompt, baseline, rollout.adapter) for prompt in prompts))
        found = tuple(pair for pair in pairs if isinstance(pair, ShadowPair))
        self._post(ShadowScored(rollout.adapter, rollout.phase, found, len(pairs) - len(found)))
        # A server that answers nobody is not asked in a circle.
        return bool(found)

    async def _claim(self) -> Sequence[Prompt]:
        settings = self._settings
        return await self._store.claim_shadow(settings.shadow_concurrency, settings.tenant_share, self._scorer.judges)


def _watched(state: State) -> RolloutState | None:
    rollout = state.rollout
    return rollout if rollout and rollout.phase in _WATCHED else None
