"""Desired = observed, on every replica, always: keeps each one by itself, and deletes what nobody needs.

Invariants: a replica that is broken, slow or gone holds up no other; routes never wait for any of this; an adapter
is unloaded only when no request is on it, and its files go only when no server has it.

(each replica: `replica_keeper`)   all observed → retention → deleted
"""

from __future__ import annotations

import asyncio
import logging

from tao_daemon.daemon.keeping import Departures, KeeperParts, ReplicaStatus
from tao_daemon.daemon.replica_keeper import ReplicaKeeper
from tao_daemon.domain.events import AdapterDeleted
from tao_daemon.registry.retention import expendable
from tao_daemon.rollout.residency import in_use

log = logging.getLogger(__name__)


class FleetKeeper:
    """Runs on the event loop. `run` raises only bugs."""

    def __init__(self, parts: KeeperParts) -> None:
        self._parts = parts
        departures = Departures(parts)
        self._keepers = tuple(ReplicaKeeper(url, parts, departures) for url in parts.fleet.urls)

    def nudge(self) -> None:
        """Look at once: routes were published, what is desired changed, or a gateway acknowledged."""
        for keeper in self._keepers:
            keeper.nudge()

    def report(self) -> tuple[ReplicaStatus, ...]:
        """How every replica was at its last look."""
        return tuple(keeper.status() for keeper in self._keepers)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for keeper in self._keepers:
                group.create_task(keeper.run())
            group.create_task(self._collecting())

    async def look(self) -> None:
        """Look at every replica once, together. For those who do not `run` it."""
        await asyncio.gather(*(keeper.look() for keeper in self._keepers))

    async def collect(self) -> None:
        """Delete the adapters that nothing needs; nothing at all while a replica cannot be observed."""
        used: set[str] = set()
        home = self._parts.fleet.seen_as(self._parts.adapters.root)
        for keeper in self._keepers:
            if keeper.loaded is None:
                return
            used |= in_use(keeper.loaded, home)
        adapters, newest = self._parts.adapters, self._parts.settings.keep_adapters
        names = await asyncio.to_thread(adapters.names)
        for name in expendable(names, needed=used | self._needed(), newest=newest):
            # Asked again each time: deleting takes a while, and somebody may want it back meanwhile.
            if name not in self._needed():
                await asyncio.to_thread(adapters.delete, name)
                self._parts.post(AdapterDeleted(name, f"not needed, and older than the newest {newest}"))

    async def _collecting(self) -> None:
        while True:
            await asyncio.sleep(self._parts.settings.collect_seconds)
            try:
                await self.collect()
            except OSError as error:
                log.warning("cannot delete adapters", extra={"reason": str(error)})

    def _needed(self) -> set[str]:
        desired = self._parts.desired()
        return {*desired.resident, *desired.kept}
