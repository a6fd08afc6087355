"""What the world outside is told: the types of lifecycle events, and the head of the journal that goes with each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

TYPE_PREFIX = "io.tao-daemon."
"""Before every type, in the `type` of a CloudEvent."""

TYPES: Mapping[str, str] = MappingProxyType(
    {
        "daemon.started": "the daemon came up",
        "daemon.restored": "the data directory was put back to what a backup held",
        "round.started": "a round began",
        "round.accepted": "the gate passed a candidate",
        "round.rejected": "the gate refuted a candidate",
        "round.inconclusive": "the gate could not tell",
        "round.failed": "a round could not be finished",
        "round.cancelled": "a person, an undo or a rollout ended a round",
        "rollout.staged": "an accepted adapter is being loaded and verified on every server",
        "rollout.shadow": "it is verified and answers live prompts beside the incumbent; no client sees it",
        "rollout.waiting_for_approval": "the shadow passed, and a person decides",
        "rollout.approved": "a person let it go past the shadow",
        "rollout.canary": "it answers a share of the conversations; one event for each step",
        "rollout.baking": "it answers everything, and is watched",
        "rollout.settled": "it has come to stay",
        "rollout.aborted": "it ended before it served everything",
        "rollout.rolled_back": "it served everything and was taken back",
        "rollout.superseded": "a newer candidate took its place",
        "rollout.paused": "a person holds it where it is",
        "rollout.resumed": "a person lets it move again",
        "undo.loading": "a person wants an adapter back that has to be loaded and verified first",
        "undo.done": "a person took back what served; `data.serving` answers now",
        "undo.failed": "what was to come back could not be loaded; what served serves on",
        "replica.drifted": "a model server lacks, or does not truly serve, an adapter that it should",
        "replica.healed": "it serves every adapter that it should, verified",
        "adapter.unservable": "an adapter can no longer be loaded",
        "adapter.deleted": "an adapter's files are gone, by retention",
        "prompts.forgotten": "prompts were erased, and the adapters that trained on them are known",
        "token.issued": "somebody was given a token of the control API",
        "token.revoked": "a token ended",
    }
)
"""Every type without its prefix, and when it happens."""


@dataclass(frozen=True, slots=True)
class JournalHead:
    """Where the journal stood when it was published: one entry names, by its hash, all before it."""

    seq: int
    hash: str
    """SHA-256 in hexadecimal; at least its first 12 digits."""

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"
