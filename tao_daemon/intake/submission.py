"""One batch on its way into the store: awaited, and tried again until it is there.

idle → in flight → committed (idle) | failed → in flight …
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Ingest, Ingested, PromptStore

logger = logging.getLogger(__name__)

Delay = Callable[[int], float]
"""Seconds to wait before try n + 1, after n failures."""


class Submission:
    """Used by the intake thread only. The batch is kept until it is committed: a retry repeats it as it was."""

    def __init__(self, store: PromptStore, delay: Delay, stopping: threading.Event) -> None:
        self._store = store
        self._delay = delay
        self._stopping = stopping
        self._batch: Ingest | None = None
        self._future: Future[Ingested] | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._began = 0.0
        self.failure = ""
        """Why the last try failed; empty while none has."""

    @property
    def busy(self) -> bool:
        return self._batch is not None

    def begin(self, batch: Ingest) -> None:
        assert not self.busy
        self._batch = batch
        self._began = time.monotonic()
        self._future = self._store.submit(batch)

    def age(self) -> float:
        """Seconds since the batch in flight was first handed over."""
        return time.monotonic() - self._began

    def advance(self, timeout: float) -> Ingest | None:
        """Wait up to `timeout` seconds for news; returns the batch once, when it has been committed."""
        batch = self._batch
        assert batch is not None
        if self._future is None:
            pause = self._retry_at - time.monotonic()
            if pause > 0:
                self._stopping.wait(min(timeout, pause))
                return None
            self._future = self._store.submit(batch)
        done, _ = wait([self._future], timeout)
        if not done:
            return None
        finished, self._future = self._future, None
        try:
            finished.result()
        except (PromptStoreError, OSError) as error:
            self._failed(error)
            return None
        self._batch, self._failures, self.failure = None, 0, ""
        return batch

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.failure = str(error)
        pause = self._delay(self._failures)
        self._retry_at = time.monotonic() + pause
        logger.warning("buffering failed", extra={"failures": self._failures, "retry_in_s": round(pause, 2)})
