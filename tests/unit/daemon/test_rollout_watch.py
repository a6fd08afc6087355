"""The watch: it looks and asks side by side, and knows when a look is worth an entry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.rollout_watch import RolloutWatch, WatchSettings
from tao_daemon.daemon.shadow import ShadowSettings
from tao_daemon.daemon.state import State
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import AdapterVerified, Event, RolloutPromoted, ShadowScored, TrafficMeasured
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.traffic import GatewayReport
from tests.machine_plays import AUTO, a_round, play
from tests.shadow_plays import Judge, Versions, fill


class Daemon:
    """Just the state and the mailbox of one."""

    def __init__(self, versions: Versions) -> None:
        self.state, _ = play(AUTO, *a_round(1, "new"), AdapterVerified("new", 1))
        self.events: list[Event] = []
        self.store = MemoryStore(held_out_fraction=0.001)
        self.board = TrafficBoard(10.0, lambda: 0.0)
        self.watch = RolloutWatch(
            self.board,
            self.store,
            versions,  # type: ignore[arg-type]
            Judge(),  # type: ignore[arg-type]
            WatchSettings(0.01, ShadowSettings(200, 4, 1.0)),
            policy=AUTO,
            state=lambda: self.state,
            post=self.post,
            clock=lambda: 5.0,
        )

    def post(self, event: Event) -> None:
        self.events.append(event)
        self.state = advance(self.state, event, AUTO, 5.0).state
        self.watch.nudge()

    async def run_until(self, done: object, seconds: float = 5.0) -> None:
        task = asyncio.create_task(self.watch.run())
        try:
            async with asyncio.timeout(seconds):
                while not done():  # type: ignore[operator]
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def scored(self) -> list[ShadowScored]:
        return [event for event in self.events if isinstance(event, ShadowScored)]


async def test_without_prompts_it_waits_and_says_so() -> None:
    daemon = Daemon(Versions())
    await daemon.run_until(lambda: "waits for live prompts" in daemon.watch.shadowing)
    assert not daemon.scored
    assert daemon.state.rollout is not None
    assert "0 of 8 pairs" in daemon.state.rollout.hold


async def test_a_sick_buffer_does_not_keep_a_regression_from_being_seen() -> None:
    daemon = Daemon(Versions())

    async def never(*_: object) -> Sequence[Prompt]:
        await asyncio.sleep(60)
        return ()

    daemon.store.claim_shadow = never  # type: ignore[method-assign]
    daemon.board.hear(GatewayReport("g", 1))
    await daemon.run_until(lambda: any(isinstance(event, TrafficMeasured) for event in daemon.events))


async def test_a_hold_is_journaled_once_however_often_it_is_looked_at() -> None:
    daemon = Daemon(Versions())
    task = asyncio.create_task(daemon.watch.run())
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(daemon.events) == 1


async def test_baking_is_compared_with_what_was_replaced() -> None:
    versions = Versions()
    daemon = Daemon(versions)
    promote = RolloutPromoted("ann", "x")
    daemon.state, _ = play(AUTO, promote, promote, promote, state=daemon.state)
    assert isinstance(daemon.state, State)
    assert daemon.state.routes.adapter == "new"
    fill(daemon.store, 4)
    await daemon.run_until(lambda: daemon.scored)
    assert {name for name, _ in versions.asked} == {"base", "new"}
