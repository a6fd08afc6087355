"""A process ends when it is told to, and within its time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

log = logging.getLogger(__name__)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def give_up() -> None:
    """What did not stop in time is killed with this process; the journal makes that safe."""
    log.error("the stop took longer than daemon.shutdown_seconds; ending now")
    os._exit(1)
