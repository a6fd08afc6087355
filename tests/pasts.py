"""A past for a daemon that has not started yet: events written into its journal as if they had happened."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tao_daemon.app.paths import journal_path
from tao_daemon.app.settings import policy_of
from tao_daemon.config import load_config
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.events import Event
from tao_daemon.registry.journal import Journal


def remember(site: Any, events: Sequence[Event]) -> State:
    """Write the events, a second apart, the last one now; only while the daemon is down. The state after them."""
    config = load_config(site.write_config())
    Path(config.daemon.data_dir).mkdir(parents=True, exist_ok=True)
    journal, began = Journal(journal_path(config)), time.time() - len(events)
    try:
        for place, event in enumerate(events):
            apply_event(journal, last_state(journal), event, policy_of(config), began + place)
        return last_state(journal)
    finally:
        journal.close()
