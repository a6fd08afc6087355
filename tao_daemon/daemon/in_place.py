"""Delivery without a gateway: an alias on the servers themselves follows the routes. A weaker promise than a gateway's.

No canary, no word of which version answered; replicas flip one after another; on the base model the alias ends.

routes of a newer generation → the alias stands for their adapter | tried again until it does, or newer ones come
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.ports import AdapterStore

log = logging.getLogger(__name__)

_WAIT_SECONDS = 3600.0
_RETRY_SECONDS = 5.0

Flip = Callable[[str, AdapterRecord | None], Awaitable[str]]


class InPlaceDelivery:
    """Runs until cancelled. `flip(alias, adapter)` is the fleet's; a healed replica makes a generation of its own."""

    def __init__(self, alias: str, board: RoutesBoard, adapters: AdapterStore, flip: Flip) -> None:
        self._alias = alias
        self._board = board
        self._adapters = adapters
        self._flip = flip

    async def run(self) -> None:
        generation, pause = -1, _WAIT_SECONDS
        while True:
            routes = await self._board.newer_than(generation, pause) or self._board.current
            if routes is None:
                continue
            generation = routes.generation
            pause = _WAIT_SECONDS if await self._deliver(routes.adapter) else _RETRY_SECONDS

    async def _deliver(self, adapter: str | None) -> bool:
        """Whether the alias stands for it on every replica."""
        try:
            record = await asyncio.to_thread(self._adapters.get, adapter) if adapter else None
            detail = await self._flip(self._alias, record)
        except (TaoError, OSError) as error:
            log.error("in-place delivery failed; trying again", extra={"alias": self._alias, "reason": str(error)})
            return False
        log.info("in-place delivery", extra={"alias": self._alias, "adapter": adapter, "detail": detail})
        return True
