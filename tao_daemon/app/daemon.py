"""The daemon process.

lock → ground (journal, buffer, parts) → workers (supervisor, scheduler, watch, keeper, intake) → control API
→ stop in the opposite order
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tao_daemon.app.control import build_api
from tao_daemon.app.ground import standing
from tao_daemon.app.operations.erasing import finish_erasure
from tao_daemon.app.stopping import give_up, stop_event
from tao_daemon.app.workers import build_workers, working
from tao_daemon.config import Config
from tao_daemon.control.http_api import build_app
from tao_daemon.control.http_server import serving
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.telemetry.logs import configure_logging

log = logging.getLogger(__name__)


async def run_daemon(config: Config) -> None:
    """Run until SIGTERM or SIGINT, then stop within `shutdown_seconds`."""
    configure_logging(config.daemon.log_level)
    stop = stop_event()
    with sole_owner(config.daemon.data_dir):
        if await asyncio.to_thread(finish_erasure, config, time.time):
            log.warning("an erasure that was interrupted is finished")
        async with _daemon(config) as work:
            stopping = asyncio.create_task(stop.wait())
            waited: list[asyncio.Future[Any]] = [*work, stopping]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            log.info("stopping")
            asyncio.get_running_loop().call_later(config.daemon.shutdown_seconds, give_up)
            for ended in (future for future in work if future.done()):
                ended.result()


@asynccontextmanager
async def _daemon(config: Config) -> AsyncIterator[list[asyncio.Future[None]]]:
    """Everything running; yields what never ends by itself, unless by a bug."""
    async with standing(config) as ground:
        workers = build_workers(ground)
        api = build_api(ground, workers)
        async with (
            working(ground, workers) as running,
            serving(build_app(api), config.control.host, config.control.port, api.dismiss),
        ):
            yield running
