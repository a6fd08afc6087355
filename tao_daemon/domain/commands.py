"""What to do next: the machine's output. Each is idempotent and carries what identifies it.

Unloading is no command: whatever the state does not name is unloaded by the one who keeps the fleet.
"""

from __future__ import annotations

from dataclasses import dataclass

from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.round import ClosingRound, RoundState


@dataclass(frozen=True, slots=True)
class RunPhase:
    """Do the work of `round.phase`, and answer with PhaseCompleted, CandidateJudged or PhaseFailed."""

    round: RoundState


@dataclass(frozen=True, slots=True)
class CloseRound:
    """End its work, give prompts back or mark them used, write the report; answer with RoundClosed."""

    closing: ClosingRound


@dataclass(frozen=True, slots=True)
class VerifyAdapter:
    """Load the adapter on every server and verify it; answer with AdapterVerified or VerificationFailed."""

    adapter: str
    attempt: int


@dataclass(frozen=True, slots=True)
class PublishRoutes:
    """Make these the routes that gateways see."""

    routes: Routes


Command = RunPhase | CloseRound | VerifyAdapter | PublishRoutes
