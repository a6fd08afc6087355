"""GET /v1/events as values: server-sent events parsed, and followed through restarts of the daemon. Parsing is pure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tao_daemon.cli.client import ControlClient, DaemonTroubled, DaemonUnreachable
from tao_daemon.domain.errors import TaoError

PATH = "/v1/events"
_RECONNECT_SECONDS = 0.5
_UNFED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Happening:
    """One event: `kind` is transition or progress; `id` is the journal's entry, None where there is none."""

    kind: str
    id: int | None
    data: dict[str, Any]


def parse_events(lines: Iterable[str]) -> Iterator[Happening]:
    """Events of a stream; comments, unknown fields and data that is no JSON object are passed over."""
    kind, number = "message", None
    data: list[str] = []
    for line in lines:
        if not line:
            if (found := _object("\n".join(data))) is not None:
                yield Happening(kind, number, found)
            kind, number, data = "message", None, []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "id" and value.isdecimal():
            number = int(value)
        elif field == "data":
            data.append(value)


def follow(client: ControlClient, after: int | None) -> Iterator[Happening | DaemonUnreachable]:
    """Events from now on, or after journal entry `after`; goes on where it was when the daemon comes back.

    While it is away, each failed try yields its error. The first connection must succeed.
    """
    connected = False
    while True:
        try:
            for happening in parse_events(client.stream(PATH, after)):
                connected = True
                if happening.id is not None:
                    after = happening.id
                yield happening
        except (DaemonUnreachable, DaemonTroubled) as error:
            if not connected:
                raise
            yield error if isinstance(error, DaemonUnreachable) else DaemonUnreachable(str(error))
        connected = True
        time.sleep(_RECONNECT_SECONDS)


class Wakeups:
    """Says when something happened in the daemon. A thread reads the stream; where it cannot, time wakes."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._happened = threading.Event()
        self._fed = False
        threading.Thread(target=self._read, name="tao-events", daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Until something happens, or for that long; at most a second while nothing would tell."""
        self._happened.wait(seconds if self._fed else min(seconds, _UNFED_SECONDS))
        self._happened.clear()

    def _read(self) -> None:
        while True:
            try:
                for line in self._client.stream(PATH):
                    # The first line of a new connection wakes too: what happened before it was not told.
                    if not self._fed or not line:
                        self._fed = True
                        self._happened.set()
            except (DaemonUnreachable, DaemonTroubled):
                pass
            except TaoError:
                return
            finally:
                self._fed = False
            time.sleep(_RECONNECT_SECONDS)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
