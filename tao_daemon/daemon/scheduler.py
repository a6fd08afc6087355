"""Looks when something may have changed, asks the pure `decide`, and posts RoundRequested.

APScheduler wakes it at calendar times; committed batches and ended rounds make it look again; so does a slow
pulse, for what only time changes. Whether the calendar is due follows from the last round's start, so that a
tick that fired during a round, or while the daemon was down, is never lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from tao_daemon.buffer.trigger import TriggerState, decide
from tao_daemon.config import Round
from tao_daemon.config.crontab import crontab
from tao_daemon.daemon.claims import RoundClaims, missing_prompts
from tao_daemon.daemon.rollouts import leaves_room_for_round
from tao_daemon.daemon.state import Policy, State
from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.events import Event, RoundRequested
from tao_daemon.domain.ports import BufferStats, Clock, PromptStore
from tao_daemon.domain.round import Outcome, RoundSummary
from tao_daemon.domain.signals import PromptsBuffered, Signal

log = logging.getLogger(__name__)

_PULSE_SECONDS = 30.0
_STATS_SECONDS, _PROMPTS_SECONDS = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class _Looked:
    """The latest look that found too few prompts."""

    at: float
    stats: BufferStats
    missing: str


class RoundScheduler:
    """Runs on the event loop. `reason` says why no round runs, or why one does; `lacks_prompts` is true while
    enough are counted for a round, and those that it can use are too few."""

    def __init__(
        self,
        settings: Round,
        store: PromptStore,
        *,
        claims: RoundClaims,
        policy: Policy,
        state: Callable[[], State],
        post: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._claims = claims
        self._policy = policy
        self._state = state
        self._post = post
        self._clock = clock
        self._started = clock()
        self._calendar = crontab(settings.schedule) if settings.schedule else None
        self._look = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._looked: _Looked | None = None
        self.reason = "starting"
        self.lacks_prompts = False

    def hear(self, signal: Signal) -> None:
        """An `Emit`: a committed batch may make a round due. Callable from any thread."""
        if isinstance(signal, PromptsBuffered):
            self._loop.call_soon_threadsafe(self._look.set)

    def nudge(self) -> None:
        """Look again: a round or a rollout ended."""
        self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        jobs = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        jobs.add_job(self.nudge, IntervalTrigger(seconds=_PULSE_SECONDS))
        if self._calendar:
            jobs.add_job(self.nudge, self._calendar)
        jobs.start()
        try:
            while True:
                await self._consider()
                await self._look.wait()
                self._look.clear()
        finally:
            jobs.shutdown(wait=False)

    async def _consider(self) -> None:
        try:
            async with asyncio.timeout(_STATS_SECONDS):
                stats = await self._store.stats()
            now = self._clock()
            decision = decide(now, self._trigger_state(stats, now))
            missing = await self._missing(stats, now) if decision.run else None
        except (TimeoutError, TaoError) as error:
            self.reason = f"the buffer does not answer: {error}"
            return
        self.reason, self.lacks_prompts = missing or decision.reason, missing is not None
        # Nobody else began one meanwhile?
        if not missing and decide(now, self._trigger_state(stats, now)).run:
            self._post(RoundRequested(decision.reason))

    async def _missing(self, stats: BufferStats, now: float) -> str | None:
        """What a round would lack, though enough is counted. Seldom looked up: it reads prompts on the store's thread,
        which serves intake. Raises TimeoutError, TaoError."""
        last = self._looked
        if last is not None and (now < last.at + _PULSE_SECONDS or stats == last.stats):
            return last.missing
        async with asyncio.timeout(_PROMPTS_SECONDS):
            missing = await missing_prompts(self._store, self._claims)
        self._looked = _Looked(now, stats, missing) if missing else None
        return missing

    def _trigger_state(self, stats: BufferStats, now: float) -> TriggerState:
        state = self._state()
        return TriggerState(
            train_available=stats.train_available,
            held_out_available=stats.held_out_available,
            round_prompts=self._settings.prompts,
            gate_min_prompts=self._claims.settings.gate_min_prompts,
            min_new_prompts=self._settings.min_new_prompts,
            min_interval_seconds=self._interval_after(state.last_round),
            last_round_ended_at=state.last_round.ended_at if state.last_round else None,
            calendar_due=self._is_calendar_due(state, now),
            round_running=bool(state.round or state.closing or state.due),
            rollout_open=not leaves_room_for_round(state, self._policy),
        )

    def _interval_after(self, last: RoundSummary | None) -> float:
        """A round that failed is likely to fail again at once: what broke it needs time."""
        failed = last is not None and last.outcome is Outcome.FAILED
        interval = self._settings.min_interval_seconds
        return max(interval, self._settings.retry_seconds) if failed else interval

    def _is_calendar_due(self, state: State, now: float) -> bool:
        """Whether the calendar fired since the last round started (or since this daemon did)."""
        if self._calendar is None:
            return False
        since = state.last_round.started_at if state.last_round else self._started
        fired = self._calendar.get_next_fire_time(None, datetime.fromtimestamp(since, UTC))
        return fired is not None and fired.timestamp() <= now
