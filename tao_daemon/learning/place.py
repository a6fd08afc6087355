"""Which of a training's processes one is. No torch: it is needed before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from tao_daemon.domain.errors import TrainingError

PEER_SECONDS = 10.0
"""For the reason of another process's end to come through."""


class PeerLost(TrainingError):
    """A collective failed: another process of the training has ended, or does not answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Number `rank`, from 0, of `count` processes."""

    rank: int = 0
    count: int = 1
