"""Gathers the evidence of an open rollout and posts it: looks at the traffic, and asks both versions live prompts.

The two go on side by side, so that a buffer or a model server that does not answer never keeps a regression in the
gateways' counters from being seen. What it posts decides nothing: the machine does.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from tao_daemon.daemon.rollouts import measured
from tao_daemon.daemon.shadow import Shadow, ShadowSettings, watched
from tao_daemon.daemon.state import Policy, State
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import Event, TrafficMeasured
from tao_daemon.domain.ports import Clock, PromptStore, Sampler, Scorer

_JOURNAL_SECONDS = 30.0
"""A hold whose words change in their numbers alone is journaled this often."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """The plain values it needs of the configuration."""

    evaluate_seconds: float
    shadow: ShadowSettings


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
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._shadow = Shadow(store, sampler, scorer, settings.shadow, post=post, monotonic=monotonic)
        self._evaluate_seconds = settings.evaluate_seconds
        self._policy = policy
        self._state = state
        self._post = post
        self._clock = clock
        self._changed = asyncio.Event()
        self._posted: tuple[float, str] = (-math.inf, "")

    @property
    def shadowing(self) -> str:
        return self._shadow.doing

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
            if not await self._shadow.ask_some(self._state()):
                await self._pause()

    async def _pause(self) -> None:
        """Until the next look is due, or the state changed."""
        changed = self._changed
        try:
            async with asyncio.timeout(self._evaluate_seconds):
                await changed.wait()
        except TimeoutError:
            return

    def _look(self) -> None:
        """Post what the gateways counted, when that moves something or is worth remembering."""
        state = self._state()
        rollout = watched(state)
        if rollout is None:
            return
        counts = self._board.counts(rollout.evidence.steps)
        event = TrafficMeasured(rollout.adapter, counts, self._board.slow_seconds())
        after = measured(event, state, self._policy, self._clock()).state.rollout
        assert after is not None
        gist = f"{after.phase} {after.step} {re.sub('[0-9.]+', '#', after.hold)}"
        now = self._clock()
        moved = (after.phase, after.step) != (rollout.phase, rollout.step)
        if moved or gist != self._posted[1] or (after != rollout and now - self._posted[0] >= _JOURNAL_SECONDS):
            self._posted = (now, gist)
            self._post(event)
