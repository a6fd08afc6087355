"""Rollouts as the journal tells them: each with its phases, in order, and who or what moved it."""

from __future__ import annotations

from typing import Any

from tao_daemon.registry.journal import Entry
from tao_daemon.registry.journal_reader import ReadOnlyJournal

_KEPT = 1000


class RolloutHistory:
    """Folds journal entries, each once, into the latest rollouts. Not thread-safe."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []
        self._seen: tuple[Any, ...] = ()
        self.seq = 0
        """The last entry that is in it."""

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The latest first. A phase (or canary step) is told once, when it begins."""
        return self._found[: -limit - 1 : -1]

    def catch_up(self, journal: ReadOnlyJournal) -> None:
        """Fold what the journal has more. Raises JournalError; what was folded before stays."""
        for entry in journal.entries(self.seq):
            self.add(entry)

    def add(self, entry: Entry) -> None:
        self.seq = entry.seq
        rollout = entry.state_after.get("rollout")
        if rollout is None:
            return
        key = (rollout["adapter"], rollout["started_at"])
        place = (*key, rollout["phase"], rollout["step"])
        if place == self._seen:
            return
        if self._seen[:2] != key:
            self._found.append(
                {"adapter": key[0], "started_at": key[1], "round": rollout["round"], "steps": [], "outcome": None}
            )
            del self._found[:-_KEPT]
        self._seen = place
        self._found[-1]["outcome"] = rollout["phase"]
        self._found[-1]["steps"].append(
            {
                "seq": entry.seq,
                "at": entry.at,
                "phase": rollout["phase"],
                "step": rollout["step"],
                "fraction": entry.state_after["routes"]["fraction"],
                "actor": entry.actor,
                "note": entry.note,
            }
        )
