"""Metrics that follow from the state: every transition is looked at, and before a scrape what changes in silence.

Decides nothing. What ended before this process began is known, and not counted again.

made → (transition → counters and gauges; routes published → adopted by all → measured)* → cancelled
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from tao_daemon.daemon.keeping import ReplicaStatus
from tao_daemon.daemon.state import Policy, State, Transition
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import (
    AdapterUnservable,
    AdapterVerified,
    CandidateJudged,
    Event,
    PhaseCompleted,
    PhaseFailed,
    ReplicaDrifted,
    ReplicaHealed,
    UndoRequested,
    VerificationFailed,
)
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.rollout import Hold, RolloutPhase, RolloutState
from tao_daemon.domain.round import RoundState
from tao_daemon.rollout.assessment import numbers
from tao_daemon.rollout.plan import decide, waits_for_person
from tao_daemon.telemetry.metrics import Metrics

_FLIP_SECONDS = 60.0
"""A flip that some gateway has not adopted by then is given up on, and measured as that long."""
_FLEET = (ReplicaDrifted, ReplicaHealed, AdapterUnservable)


class Instruments:
    """Belongs to the event loop's thread. `run` until cancelled."""

    def __init__(
        self,
        metrics: Metrics,
        traffic: TrafficBoard,
        state: State,
        *,
        policy: Policy,
        clock: Clock,
        mailbox: Callable[[], int],
        replicas: Callable[[], Sequence[ReplicaStatus]],
        lacks_prompts: Callable[[], bool],
    ) -> None:
        """`state` is the one before the first transition; `mailbox` gives the number of events that wait, `replicas`
        how each was at its last look, `lacks_prompts` whether scorers match too few for a round."""
        self._metrics = metrics
        self._traffic = traffic
        self._policy = policy
        self._clock = clock
        self._mailbox = mailbox
        self._replicas = replicas
        self._lacks_prompts = lacks_prompts
        self._state = state
        self._phase_began = 0.0
        self._approval_since = 0.0
        self._flips: asyncio.Queue[tuple[int, str, float]] = asyncio.Queue()
        self._remember(state)
        metrics.before_scrapes(self.look)

    def listen(self, event: Event, transition: Transition) -> None:
        """After every transition, in order."""
        now, after = self._clock(), transition.state
        before, self._state = self._state, after
        self._metrics.machine.journaled(now)
        self._follow_round(event, before, after, now)
        self._follow_rollout(before, after, now)
        self._count(event, before, transition)
        self._show(after)
        if after.routes.generation != before.routes.generation and self._traffic.live:
            began = asyncio.get_running_loop().time()
            self._flips.put_nowait((after.routes.generation, _cause(event, before), began))

    def look(self) -> None:
        """Before a scrape."""
        state = self._state
        live = self._traffic.live
        self._metrics.routes.gateways(
            live=len(live),
            reporting=sum(report is not None for report in live.values()),
            behind=len(self._traffic.behind(state.routes.generation)),
        )
        self._metrics.machine.waiting(self._mailbox())
        self._metrics.rounds.lacks_prompts(self._lacks_prompts())
        self._metrics.rollout.holding(self._why_it_holds(state.open_rollout))
        for replica in self._replicas():
            self._metrics.serving.replica(
                urlsplit(replica.url).netloc.rpartition("@")[2] or replica.url,
                reachable=replica.reachable,
                ready=replica.ready,
                adapters=len(replica.adapters),
            )

    async def run(self) -> None:
        with self._metrics.process.counting():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._metrics.process.watch_loop())
                group.create_task(self._measure_flips())

    async def _measure_flips(self) -> None:
        """One after the other: who has adopted routes has adopted all before them."""
        clock = asyncio.get_running_loop().time
        while True:
            generation, cause, began = await self._flips.get()
            await self._traffic.until_acknowledged(generation, max(0.0, began + _FLIP_SECONDS - clock()))
            self._metrics.routes.flipped(cause, clock() - began)

    def _remember(self, state: State) -> None:
        if state.last_round:
            self._metrics.rounds.remember(state.last_round)
        if state.rollout and not state.rollout.phase.is_open:
            self._metrics.rollout.remember(state.rollout.phase, state.rollout.since)
        self._show(state)

    def _show(self, state: State) -> None:
        self._metrics.rounds.due(state.due is not None)
        self._metrics.routes.published(state.routes, state.incumbent_since)
        self._metrics.routes.returning(state.returning is not None)
        self._metrics.serving.unready(len(state.routes.unready))
        self._metrics.rollout.opened(state.open_rollout)
        if state.rollout:
            self._metrics.rollout.evidence(numbers(state.rollout.evidence, self._policy.plan.limits))

    def _follow_round(self, event: Event, before: State, after: State, now: float) -> None:
        rounds = self._metrics.rounds
        if after.last_round and after.last_round != before.last_round:
            rounds.ended(after.last_round)
        running = before.round
        if running and _is_of(event, running):
            if isinstance(event, PhaseFailed):
                rounds.failed(running.phase)
            else:
                rounds.succeeded(running.phase, now - self._phase_began, now)
        if _place(after.round) != _place(running):
            self._phase_began = now
            rounds.entered(after.round.phase if after.round else None, now)

    def _follow_rollout(self, before: State, after: State, now: float) -> None:
        rollout, old, new = self._metrics.rollout, before.rollout, after.rollout
        if before.open_rollout and old and new and (old.adapter, old.round) != (new.adapter, new.round):
            # The state remembers one rollout, and it is the newer one.
            rollout.ended(RolloutPhase.SUPERSEDED, now)
        if new and not new.phase.is_open and (old is None or old.phase is not new.phase or old.round != new.round):
            rollout.ended(new.phase, now)
        if after.open_rollout and waits_for_person(after.open_rollout, self._policy.plan):
            self._approval_since = self._approval_since or now
        else:
            self._approval_since = 0.0
        rollout.waits_for_approval(self._approval_since)

    def _count(self, event: Event, before: State, transition: Transition) -> None:
        match event:
            case UndoRequested():
                after = transition.state
                loading = after.returning is not None and after.returning != before.returning
                self._metrics.routes.undone("refused" if transition.refused else "loading" if loading else "done")
            case AdapterVerified():
                self._metrics.rollout.verified("verified")
            case VerificationFailed():
                self._metrics.rollout.verified("failed")
            case ReplicaDrifted():
                self._metrics.serving.drifted()
            case ReplicaHealed():
                self._metrics.serving.healed()
            case AdapterUnservable():
                self._metrics.serving.unservable()
            case _:
                pass

    def _why_it_holds(self, rollout: RolloutState | None) -> str | None:
        """The reason by which an open rollout does not move now; see `rollout.plan.decide`."""
        if rollout is None:
            return None
        step = decide(rollout, self._policy.plan, self._clock(), sighted=self._traffic.sighted)
        # What may move does so at the next look at the traffic; until then that look is what is missing.
        return step.hold or Hold.EVIDENCE


def _place(running: RoundState | None) -> tuple[int, str, int] | None:
    return (running.id, running.phase, running.attempt) if running else None


def _is_of(event: Event, running: RoundState) -> bool:
    """Whether it tells how the running phase ended; one of an older attempt does not."""
    match event:
        case PhaseCompleted() | PhaseFailed():
            return (event.round, event.phase, event.attempt) == _place(running)
        case CandidateJudged():
            return (event.round, event.attempt) == (running.id, running.attempt)
        case _:
            return False


def _cause(event: Event, before: State) -> str:
    """What changed the routes."""
    if isinstance(event, UndoRequested) or (isinstance(event, AdapterVerified) and before.returning):
        return "undo"
    return "fleet" if isinstance(event, _FLEET) else "rollout"
