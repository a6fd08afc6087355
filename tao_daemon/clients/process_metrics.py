"""What every process of ours tells of itself: what the operating system says, its log, and how busy its loop is.

made → (log records, looks at the loop's delay)* → stopped with the loop
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from tao_daemon.clients.prometheus import make_counter, make_histogram, make_info
from tao_daemon.domain.metrics import Label, counter, histogram, info

_LEVELS = ("warning", "error", "critical")
_LOOK_SECONDS = 0.5

BUILD = info(
    "tao_build",
    "The version that runs, and what the process is.",
    "An upgrade: every process should show the new version.",
    Label("version", one_for_each="release, one series at a time"),
    Label("component", ("daemon", "gateway")),
)
LOG_RECORDS = counter(
    "tao_process_log_records",
    "records",
    "Log records by level, from warnings up.",
    "Something is wrong and no other metric says what: read the log of that time.",
    Label("level", _LEVELS),
)
LOOP_LAG = histogram(
    "tao_process_event_loop_lag_seconds",
    "seconds",
    "How much later than asked the event loop woke up, looked at twice a second.",
    "Requests, undo or scrapes are slow: above 0.1 s something blocks the loop, or the machine has no processor left.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
FAMILIES = (BUILD, LOG_RECORDS, LOOP_LAG)


class ProcessMetrics(logging.Handler):
    """Registers itself, and Prometheus's own process, platform and garbage collector metrics, in `registry`.

    A log handler too, at the root logger while `counting`.
    """

    def __init__(self, registry: CollectorRegistry, *, version: str, component: str) -> None:
        super().__init__(logging.WARNING)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        make_info(BUILD, registry).info({"version": version, "component": component})
        self._records = make_counter(LOG_RECORDS, registry)
        self._lag = make_histogram(LOOP_LAG, registry)

    def emit(self, record: logging.LogRecord) -> None:
        """Count one record, on whatever thread it was logged."""
        self._records.labels(_LEVELS[min((record.levelno - logging.WARNING) // 10, 2)]).inc()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Log records are counted."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)

    async def watch_loop(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self._lag.observe(max(0.0, clock() - due))
