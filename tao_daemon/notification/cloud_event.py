"""Lifecycle events as CloudEvents 1.0, structured JSON: sent, signed, and read back to verify the journal. Pure.

Each carries in `data.journal` the sequence number and the hash of the entry that it tells of: the journal's head.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from tao_daemon.domain.journal import JournalEntry
from tao_daemon.domain.lifecycle import TYPE_PREFIX, JournalHead
from tao_daemon.notification.lifecycle import State, lifecycle_events

CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"

CloudEvent = Mapping[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID_DIGITS = 12


def cloud_events(entry: JournalEntry, before: State, source: str) -> list[CloudEvent]:
    """What an entry tells. The same entry gives the same events again, with the same ids."""
    return [
        {
            "specversion": "1.0",
            # Of the hash, so that a journal restored from a backup does not give an id twice.
            "id": f"{entry.seq}-{entry.hash[:_ID_DIGITS]}-{number}",
            "source": source,
            "type": f"{TYPE_PREFIX}{event.type}",
            "subject": event.subject,
            "time": _rfc3339(entry.at),
            "datacontenttype": "application/json",
            "data": {**event.data, "journal": {"seq": entry.seq, "hash": entry.hash}},
        }
        for number, event in enumerate(lifecycle_events(entry, before))
    ]


def short_type(event: CloudEvent) -> str:
    """The type without its prefix: a key of `domain.lifecycle.TYPES`."""
    return str(event["type"]).removeprefix(TYPE_PREFIX)


def is_wanted(event: CloudEvent, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`rollout.*`) matches the event's type."""
    return any(fnmatchcase(short_type(event), pattern) for pattern in patterns)


def encode(event: CloudEvent) -> bytes:
    return json.dumps(event, separators=(",", ":"), allow_nan=False).encode()


def signature(body: bytes, secret: str) -> str:
    """The value of X-Tao-Signature."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def published_heads(lines: Iterable[str], source: str | None = None) -> Iterator[JournalHead]:
    """The heads in CloudEvents, one per line; with `source`, only those of that daemon.

    Raises ValueError naming the line that is none of ours.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            head = event["data"]["journal"]
            found = JournalHead(int(head["seq"]), str(head["hash"]))
            theirs = event["source"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"line {number} is no event of tao-daemon: it has no data.journal") from None
        if source is None or theirs == source:
            yield found


def _rfc3339(at: float) -> str:
    return (_EPOCH + timedelta(seconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
