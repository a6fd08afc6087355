"""What the daemon must not forget, and what a step of its machine is."""

from __future__ import annotations

from dataclasses import dataclass, field

from tao_daemon.domain.commands import Command
from tao_daemon.domain.rollout import RolloutState, Routes
from tao_daemon.domain.round import ClosingRound, RoundState, RoundSummary
from tao_daemon.rollout.plan import Plan


@dataclass(frozen=True, slots=True)
class Returning:
    """An undo to an adapter that is not resident: it is loaded and verified first, the present one serves on."""

    adapter: str
    attempt: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """Everything the daemon must not forget. What is not here is observed again after a restart."""

    routes: Routes = field(default_factory=lambda: Routes(generation=0, adapter=None))
    incumbent_since: float = 0.0
    round: RoundState | None = None
    closing: ClosingRound | None = None
    rollout: RolloutState | None = None
    returning: Returning | None = None
    served: tuple[str, ...] = ()
    """Adapters that settled, the latest first: what `rollout undo --to` may go back to."""
    last_round: RoundSummary | None = None
    next_round: int = 1
    due: str | None = None
    """Why a round should start as soon as it can; survives restarts, so that no calendar tick is lost."""

    @property
    def open_rollout(self) -> RolloutState | None:
        """The rollout that still moves."""
        return self.rollout if self.rollout and self.rollout.phase.is_open else None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration lets the machine decide."""

    plan: Plan
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state, what to do, and why, in words for the audit log."""

    state: State
    commands: tuple[Command, ...] = ()
    note: str = ""
    refused: bool = False
    """Somebody asked for what cannot be done now; nothing changed."""

    def then(self, second: Transition) -> Transition:
        """Both, in order: the second was computed from the state of the first."""
        note = "; ".join(part for part in (self.note, second.note) if part)
        return Transition(second.state, (*self.commands, *second.commands), note, self.refused)


def refusal(state: State, note: str) -> Transition:
    """Nothing changes, and the one who asked is told why."""
    return Transition(state, note=note, refused=True)
