"""Looking again and again: whenever something happens, at least every second, through restarts of the daemon."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tao_daemon.cli.client import TIMEOUT_SECONDS, ControlClient, DaemonTroubled, DaemonUnreachable
from tao_daemon.cli.durations import format_duration
from tao_daemon.cli.stream import Wakeups

_REFRESH_SECONDS = 1.0

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What the daemon says now; None while it does not answer, then why and for how long."""

    found: Document | None
    silent_seconds: float = 0.0
    problem: str = ""


def looks(
    client: ControlClient, path: str, every: float = _REFRESH_SECONDS, *, patience: float | None = None
) -> Iterator[Look]:
    """Look at `path` for ever; the first look must succeed. With `patience`, for so many seconds, whatever answers."""
    answered = time.monotonic()
    until = math.inf if patience is None else answered + patience
    if patience is None:
        client.get(path)
    wakeups = Wakeups(client)
    while (left := until - time.monotonic()) > 0:
        try:
            look = Look(client.get(path, timeout=max(1.0, min(TIMEOUT_SECONDS, left))))
            answered = time.monotonic()
        except (DaemonUnreachable, DaemonTroubled) as error:
            look = Look(None, time.monotonic() - answered, str(error))
        yield look
        wakeups.wait(max(0.0, min(every if look.found is not None else _REFRESH_SECONDS, until - time.monotonic())))


def outage(look: Look) -> str:
    """How long the daemon has been away."""
    return f"the daemon does not answer since {format_duration(look.silent_seconds)}"
