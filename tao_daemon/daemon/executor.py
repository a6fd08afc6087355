"""Does what the machine commands, one round operation at a time, and posts what came of it.

Round work and deliveries run as tasks; publishing routes happens at once, before anything else can wait.
A bug in a task ends the daemon (it would otherwise hang a round in silence); expected failures are events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from tao_daemon.clients.failpoints import reach
from tao_daemon.daemon.outage import OutagePatience
from tao_daemon.daemon.phases import RoundWork
from tao_daemon.daemon.round_parts import Parts
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.domain.commands import (
    CloseRound,
    Command,
    PublishRoutes,
    RunPhase,
    VerifyAdapter,
)
from tao_daemon.domain.errors import TaoError, UpstreamError
from tao_daemon.domain.events import AdapterVerified, Event, RoundClosed, VerificationFailed
from tao_daemon.domain.round import ClosingRound, RoundState

log = logging.getLogger(__name__)

_CLOSE_RETRY_SECONDS = 5.0


class Executor:
    """Turns commands into work and work into events."""

    def __init__(
        self,
        work: RoundWork,
        parts: Parts,
        board: RoutesBoard,
        *,
        post: Callable[[Event], None],
        outage_seconds: float,
    ) -> None:
        self._work = work
        self._parts = parts
        self._board = board
        self._post = post
        self._outage_seconds = outage_seconds
        self._round_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with the first bug that a task raised."""

    def execute(self, command: Command) -> None:
        """Start acting on a command; never blocks on the network or the buffer."""
        match command:
            case PublishRoutes(routes):
                self._board.publish(routes)
            case RunPhase(running):
                self._round_task = self._spawn(self._run_phase(running))
            case CloseRound(closing):
                self._spawn(self._close(closing, self._round_task))
            case VerifyAdapter(adapter, attempt):
                self._spawn(self._verify(adapter, attempt))
            case _:
                assert_never(command)

    async def stop(self) -> None:
        """Cancel what runs and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_phase(self, running: RoundState) -> None:
        reach(f"{running.phase}.begin")
        event = await self._work.run(running)
        reach(f"{running.phase}.end")
        self._post(event)

    async def _close(self, closing: ClosingRound, round_task: asyncio.Task[None] | None) -> None:
        """Only after the round's work has truly ended; repeated until it succeeds, for nothing may leak."""
        if round_task and not round_task.done():
            round_task.cancel()
            await asyncio.wait([round_task])
        while True:
            try:
                await self._work.put_away(closing)
            except (TaoError, OSError) as error:
                log.warning("cannot close the round yet", extra={"round": closing.round.id, "reason": str(error)})
                await asyncio.sleep(_CLOSE_RETRY_SECONDS)
            else:
                self._post(RoundClosed(closing.round.id))
                return

    async def _verify(self, adapter: str, attempt: int) -> None:
        reach("verifying.begin")
        try:
            detail = await self._serve(adapter)
        except (TaoError, OSError) as error:
            self._post(VerificationFailed(adapter, attempt, str(error)))
        else:
            reach("verifying.end")
            self._post(AdapterVerified(adapter, attempt, detail))

    async def _serve(self, adapter: str) -> str:
        """Load and verify; a server that does not answer is waited for, as a round waits for it."""
        record = await asyncio.to_thread(self._parts.adapters.get, adapter)
        patience = OutagePatience(self._outage_seconds)
        while True:
            try:
                return await self._parts.fleet.serve(record)
            except UpstreamError as error:
                pause = patience.next_pause(time.monotonic())
                if pause is None:
                    raise
                log.warning("a swap waits for its server", extra={"adapter": adapter, "reason": str(error)})
                await asyncio.sleep(pause)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not self.broken.done():
            self.broken.set_exception(error)
