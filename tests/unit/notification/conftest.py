"""A journal in memory, written by the real machine, and what it tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tao_daemon.daemon.codec import encode_event, encode_state
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import Policy, State
from tao_daemon.domain.events import DAEMON, Event
from tao_daemon.notification.cloud_event import CloudEvent, cloud_events
from tao_daemon.registry.journal import Entry
from tests.machine_plays import AUTO


@dataclass
class Play:
    """Events go in, the CloudEvents of their entries come out."""

    policy: Policy
    state: State = field(default_factory=State)
    entries: list[Entry] = field(default_factory=list)

    def __call__(self, *events: Event, now: float = 1763840000.25) -> list[CloudEvent]:
        """What the last of the events tells."""
        told: list[CloudEvent] = []
        for event in events:
            before = self.entries[-1].state_after if self.entries else {}
            transition = advance(self.state, event, self.policy, now)
            self.state = transition.state
            seq = len(self.entries) + 1
            entry = Entry(
                seq,
                now,
                json.loads(json.dumps(encode_event(event))),
                json.loads(json.dumps(encode_state(transition.state))),
                [],
                getattr(event, "actor", DAEMON),
                transition.note,
                "",
                hashlib.sha256(str(seq).encode()).hexdigest(),
            )
            self.entries.append(entry)
            told = cloud_events(entry, before, "tao-test")
        return told


@pytest.fixture
def make_play() -> Callable[..., Play]:
    def make(policy: Policy = AUTO) -> Play:
        return Play(policy)

    return make


@pytest.fixture
def kinds() -> Callable[[list[CloudEvent]], list[str]]:
    """The short types."""

    def of(events: list[CloudEvent]) -> list[str]:
        return [str(event["type"]).removeprefix("io.tao-daemon.") for event in events]

    return of


@pytest.fixture
def example() -> dict[str, Any]:
    """A CloudEvent that waits for a person."""
    return {
        "specversion": "1.0",
        "id": "41-0123456789ab-0",
        "source": "tao-test",
        "type": "io.tao-daemon.rollout.waiting_for_approval",
        "subject": "rollout/a1",
        "time": "2026-11-22T19:33:20.250Z",
        "datacontenttype": "application/json",
        "data": {
            "what": "shadow passed: 64 pairs, mean difference +0.310",
            "actor": "daemon",
            "reason": "shadow passed",
            "adapter": "a1",
            "fraction": 0.0,
            "evidence": {"shadow_pairs": 64, "shadow_mean_difference": 0.3125, "shadow_skipped": 0},
            "journal": {"seq": 41, "hash": "0123456789ab" + "0" * 52},
        },
    }
