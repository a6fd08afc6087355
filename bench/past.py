"""Events of an undisturbed daemon, in order, and a past: events written into a journal as if they had happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

from tao_daemon.app.paths import journal_path
from tao_daemon.app.settings import policy_of
from tao_daemon.config import Config
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.events import (
    AdapterVerified,
    CandidateJudged,
    Event,
    PhaseCompleted,
    RolloutPromoted,
    RoundClosed,
    RoundRequested,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.round import Phase
from tao_daemon.registry.journal import Journal


def a_round(number: int, adapter: str, decision: Decision = Decision.PASS) -> list[Event]:
    """A round up to its verdict; when that is PASS, the rollout of its adapter is staged."""
    work: list[Event] = [RoundRequested("a past")]
    for phase in list(Phase)[:4]:
        work.append(PhaseCompleted(number, 1, phase, adapter if phase is Phase.TRAINING else None))
    return [*work, CandidateJudged(number, 1, decision, "judged"), RoundClosed(number)]


def settling(number: int, adapter: str) -> list[Event]:
    """A round whose adapter is verified and promoted in full."""
    return [*a_round(number, adapter), AdapterVerified(adapter, 1), RolloutPromoted("ann", "sure", full=True)]


def remember(config: Config, events: Sequence[Event], times: Iterable[float]) -> State:
    """Append the events to the journal, each at its Unix time; only while the daemon is down. The state after them."""
    config.daemon.data_dir.mkdir(parents=True, exist_ok=True)
    with closing(Journal(journal_path(config))) as journal:
        state = last_state(journal)
        for event, at in zip(events, times, strict=False):
            state = apply_event(journal, state, event, policy_of(config), at).state
    return state
