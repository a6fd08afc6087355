"""What of the journal concerns the world outside: an entry and the state before it become lifecycle events. Pure.

Told from what changed in the state, so that a refused or ignored event says nothing, and telling again says the same.
An entry of a type that is not known here says nothing either. No text of prompts or completions is in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tao_daemon.domain.journal import JournalEntry
from tao_daemon.domain.rollout import WAITS_FOR_APPROVAL, RolloutPhase, traffic_share
from tao_daemon.notification.evidence import numbers

State = Mapping[str, Any]
"""A `state_after` of the journal; {} before the first entry."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One of `domain.lifecycle.TYPES`, and what it is about."""

    type: str
    subject: str
    """`round/7`, `rollout/<adapter>`, `adapter/<name>`, `replica/<url>`, `daemon` …"""
    data: Mapping[str, Any]


def lifecycle_events(entry: JournalEntry, before: State) -> tuple[LifecycleEvent, ...]:
    """What the entry tells, in the order of cause and effect."""
    after = entry.state_after
    verdict = list(_ended_round(entry, before, after))
    cancelled = [event for event in verdict if event.type == "round.cancelled"]
    judged = [event for event in verdict if event.type != "round.cancelled"]
    return (
        *_named(entry, before, after),
        *_undo(entry, before, after),
        *judged,
        *_rollout(entry, before, after),
        *cancelled,
        *_started_round(entry, before, after),
    )


def _told(entry: JournalEntry, kind: str, subject: str, **more: Any) -> LifecycleEvent:
    """`reason` is the event's own, a person's or a part's, unless `more` has a better one."""
    data = {
        "what": entry.note,
        "actor": entry.actor,
        "reason": str(entry.event.get("reason") or ""),
        "cause": str(entry.event.get("type")),
        "serving": _routes(entry.state_after).get("adapter"),
        **more,
    }
    return LifecycleEvent(kind, subject, data)


def _ended_round(entry: JournalEntry, before: State, after: State) -> Iterator[LifecycleEvent]:
    last, older = after.get("last_round"), before.get("last_round")
    if last and last["id"] != (older or {}).get("id"):
        yield _told(
            entry,
            f"round.{last['outcome']}",
            f"round/{last['id']}",
            reason=last["reason"],
            round=last["id"],
            adapter=last["candidate"],
            seconds=round(last["ended_at"] - last["started_at"], 3),
        )


def _started_round(entry: JournalEntry, before: State, after: State) -> Iterator[LifecycleEvent]:
    running, older = after.get("round"), before.get("round")
    if running and running["id"] != (older or {}).get("id"):
        yield _told(
            entry,
            "round.started",
            f"round/{running['id']}",
            reason=running["reason"],
            round=running["id"],
            incumbent=running["incumbent"],
        )


def _rollout(entry: JournalEntry, before: State, after: State) -> Iterator[LifecycleEvent]:
    rollout, older = after.get("rollout"), before.get("rollout")
    if not rollout:
        return
    if older and _key(older) != _key(rollout):
        if RolloutPhase(older["phase"]).is_open:
            ended = {**older, "phase": RolloutPhase.SUPERSEDED.value}
            reason = f"{rollout['adapter']} is newer and passed the gate too"
            yield _of_rollout(entry, "rollout.superseded", ended, older, reason)
        older = None
    if older is None or (older["phase"], older["step"]) != (rollout["phase"], rollout["step"]):
        reason = str(entry.event.get("reason") or rollout["reason"])
        yield _of_rollout(entry, f"rollout.{rollout['phase']}", rollout, older, reason)
        return
    for kind, happened in _HELD.items():
        if happened(older, rollout):
            yield _of_rollout(entry, kind, rollout, older, str(entry.event.get("reason") or rollout["hold"]))


_HELD: Mapping[str, Callable[[State, State], bool]] = {
    "rollout.approved": lambda old, new: bool(
        (new["approved_by"] and not old["approved_by"]) or (new["hurried"] and not old["hurried"])
    ),
    "rollout.paused": lambda old, new: bool(new["paused_by"] and not old["paused_by"]),
    "rollout.resumed": lambda old, new: bool(old["paused_by"] and not new["paused_by"]),
    "rollout.waiting_for_approval": lambda old, new: (
        new["hold"].endswith(WAITS_FOR_APPROVAL) and not old["hold"].endswith(WAITS_FOR_APPROVAL)
    ),
}
"""What may happen to a rollout that stays where it is."""


def _of_rollout(entry: JournalEntry, kind: str, rollout: State, older: State | None, reason: str) -> LifecycleEvent:
    phase = rollout["phase"]
    # Baking begins with fresh evidence; what led to it is in the state before.
    evidence = older["evidence"] if older and phase == RolloutPhase.BAKING else rollout["evidence"]
    return _told(
        entry,
        kind,
        f"rollout/{rollout['adapter']}",
        reason=reason,
        round=rollout["round"],
        adapter=rollout["adapter"],
        phase=phase,
        previous_phase=older["phase"] if older else None,
        fraction=traffic_share(phase, float(_routes(entry.state_after).get("fraction", 0.0))),
        evidence=numbers(evidence),
    )


def _undo(entry: JournalEntry, before: State, after: State) -> Iterator[LifecycleEvent]:
    returning, older = after.get("returning"), before.get("returning")
    old, new = _routes(before), _routes(after)
    flipped = (old.get("adapter"), old.get("candidate")) != (new.get("adapter"), new.get("candidate"))
    asked = entry.event.get("type") == "UndoRequested"
    undone = {"adapter": old.get("candidate") or old.get("adapter"), "fraction": None}
    if returning and (older is None or older["adapter"] != returning["adapter"]):
        yield _told(entry, "undo.loading", "undo", **undone, to=returning["adapter"])
    elif asked and (flipped or (older and not returning)):
        yield _told(entry, "undo.done", "undo", **undone, to=new.get("adapter"))
    elif older and not returning:
        person = {"actor": older["actor"], "reason": older["reason"]}
        kind = "undo.done" if new.get("adapter") == older["adapter"] else "undo.failed"
        yield _told(entry, kind, "undo", **undone, to=older["adapter"], **person)


def _named(entry: JournalEntry, before: State, after: State) -> Iterator[LifecycleEvent]:
    """What is told by the event's own name: things that hardly change the state."""
    event = entry.event
    old, new = (set(_routes(state).get("unready", ())) for state in (before, after))
    match event.get("type"):
        case "DaemonStarted":
            yield _told(entry, "daemon.started", "daemon", version=event["version"])
        case "BackupRestored":
            yield _told(entry, "daemon.restored", "daemon", taken_at=event["taken_at"])
        case "PromptsForgotten":
            more = {"count": event["count"], "rounds": event["rounds"], "adapters": event["adapters"]}
            yield _told(entry, "prompts.forgotten", "prompts", **more)
        case "ReplicaDrifted" if new - old:
            yield _told(entry, "replica.drifted", f"replica/{event['url']}", replica=event["url"])
        case "ReplicaHealed" if old - new:
            yield _told(entry, "replica.healed", f"replica/{event['url']}", replica=event["url"])
        case "AdapterUnservable":
            yield _told(entry, "adapter.unservable", f"adapter/{event['adapter']}", adapter=event["adapter"])
        case "AdapterDeleted":
            yield _told(entry, "adapter.deleted", f"adapter/{event['adapter']}", adapter=event["adapter"])
        case "TokenIssued":
            more = {"name": event["name"], "scopes": list(event["scopes"]), "expires_at": event["expires_at"]}
            yield _told(entry, "token.issued", f"token/{event['token']}", token=event["token"], **more)
        case "TokenRevoked":
            yield _told(entry, "token.revoked", f"token/{event['token']}", token=event["token"], name=event["name"])
        case _:
            pass


def _routes(state: State) -> State:
    routes: State = state.get("routes") or {}
    return routes


def _key(rollout: State) -> tuple[Any, Any]:
    return rollout["adapter"], rollout["started_at"]
