"""Looks when something may have changed, asks the pure `decide`, and posts RoundRequested.

APScheduler holds the calendar; committed batches and ended rounds make it look again; so does a slow pulse,
for what only time changes. Jobs only post messages: a missed run is coalesced, never dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tao_daemon.buffer.trigger import TriggerState, decide
from tao_daemon.config import Round
from tao_daemon.daemon.machine import State
from tao_daemon.domain.events import Event, RoundRequested
from tao_daemon.domain.ports import BufferStats, Clock, PromptStore
from tao_daemon.domain.signals import PromptsBuffered, Signal

log = logging.getLogger(__name__)

_PULSE_SECONDS = 30.0
_STATS_SECONDS = 10.0


class RoundScheduler:
    """Runs on the event loop between `start` and `stop`. `reason` says why no round runs, or why one does."""

    def __init__(
        self,
        settings: Round,
        store: PromptStore,
        *,
        state: Callable[[], State],
        post: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._state = state
        self._post = post
        self._clock = clock
        self._look = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._jobs = AsyncIOScheduler(
            timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self.reason = "starting"

    def hear(self, signal: Signal) -> None:
        """An `Emit`: a committed batch may make a round due. Callable from any thread."""
        if isinstance(signal, PromptsBuffered):
            self._loop.call_soon_threadsafe(self._look.set)

    def nudge(self) -> None:
        """Look again: a round or a rollout ended."""
        self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._jobs.add_job(self._look.set, IntervalTrigger(seconds=_PULSE_SECONDS))
        if self._settings.schedule:
            self._jobs.add_job(self._calendar, CronTrigger.from_crontab(self._settings.schedule, timezone="UTC"))
        self._jobs.start()
        try:
            while True:
                await self._consider()
                await self._look.wait()
                self._look.clear()
        finally:
            self._jobs.shutdown(wait=False)

    def _calendar(self) -> None:
        """The due flag lives in the journaled state, so that a tick during a round is not lost."""
        self._post(RoundRequested(f"the calendar: {self._settings.schedule}"))

    async def _consider(self) -> None:
        try:
            async with asyncio.timeout(_STATS_SECONDS):
                stats = await self._store.stats()
        except TimeoutError:
            self.reason = "the buffer does not answer"
            return
        decision = decide(self._clock(), self._trigger_state(stats))
        self.reason = decision.reason
        if decision.run:
            self._post(RoundRequested(decision.reason))

    def _trigger_state(self, stats: BufferStats) -> TriggerState:
        state = self._state()
        rollout_open = state.rollout is not None and state.rollout.phase.is_open
        return TriggerState(
            fresh_prompts=stats.train_available,
            fresh_held_out=stats.held_out_available,
            busy=bool(state.round or state.closing or rollout_open or state.due),
            last_round_ended=state.last_round.ended_at if state.last_round else None,
        )
