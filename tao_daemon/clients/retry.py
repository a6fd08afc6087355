"""The one way to repeat a call: a few times, with growing jittered pauses, and only what may pass by itself.

A timeout is not repeated: its deadline was already all the patience there was. Neither is a refusal (4xx).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import stamina

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout

_PASSING_STATUSES = frozenset({429, 500, 502, 503, 504})

T = TypeVar("T")


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed a moment later: no answer, overload, or a server's own failure."""
    if not isinstance(error, UpstreamError) or isinstance(error, UpstreamTimeout):
        return False
    return error.status is None or error.status in _PASSING_STATUSES


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """For idempotent calls only. `attempts` counts the first one; 1 never repeats."""

    attempts: int = 3
    patience_seconds: float = 30.0
    """No further attempt starts when this has passed since the first."""
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 2.0

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Await `operation()` until it succeeds; the last error propagates as it is."""
        # The context form and never the decorator: stamina logs a decorated call's arguments, so the prompt.
        async for attempt in stamina.retry_context(
            on=is_transient,
            attempts=self.attempts,
            timeout=self.patience_seconds,
            wait_initial=self.first_pause_seconds,
            wait_max=self.longest_pause_seconds,
            wait_jitter=self.first_pause_seconds,
        ):
            with attempt:
                return await operation()
        raise AssertionError("stamina ends by a result or by an error")
