"""What needs a person now, read from a status. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_HEALTHY_INTAKE = ("consuming", "off")
_WATCHED = ("canary", "baking")


@dataclass(frozen=True, slots=True)
class Need:
    """One thing to do, and the command that does it; empty where no command can."""

    text: str
    command: str = ""


def needs(status: Mapping[str, Any]) -> list[Need]:
    """What a person should do, the most urgent first; empty when nothing waits for anybody."""
    return [*_rollout(status), *_fleet(status), *_data(status), *_last_round(status)]


def _rollout(status: Mapping[str, Any]) -> Iterator[Need]:
    rollout = status["rollout"]
    if rollout is None or not is_open(rollout):
        return
    if rollout["waits_for_approval"]:
        yield Need(
            f"the rollout of {rollout['adapter']} waits for approval",
            'tao-daemon rollout approve --reason "why"   (or abort)',
        )
    if rollout["paused_by"]:
        yield Need(
            f"the rollout of {rollout['adapter']} is paused by {rollout['paused_by']}",
            'tao-daemon rollout resume --reason "why"',
        )
    if rollout["phase"] in _WATCHED and not status["fleet"]["gateways"] and _asks_for_conversations(rollout):
        yield Need(
            f"the rollout of {rollout['adapter']} cannot move: no gateway reports what it counts",
            "tao-daemon gateway --config config.toml",
        )


def _asks_for_conversations(rollout: Mapping[str, Any]) -> bool:
    plan = rollout["plan"]
    return bool(plan["step_conversations"] if rollout["phase"] == "canary" else plan["bake_conversations"])


def _fleet(status: Mapping[str, Any]) -> Iterator[Need]:
    unready = status["fleet"]["unready"]
    if unready:
        what = "is" if len(unready) == 1 else "are"
        yield Need(
            f"{', '.join(unready)} {what} not ready for adapters and being healed; if that lasts, look at its log",
        )


def _data(status: Mapping[str, Any]) -> Iterator[Need]:
    if status["buffer"] is None:
        yield Need("the buffer does not answer; see the daemon's log, and free disk space")
    if status["intake"] not in _HEALTHY_INTAKE:
        yield Need(f"intake is {status['intake'].replace('_', ' ')}; nothing is lost, Kafka keeps it for its retention")


def _last_round(status: Mapping[str, Any]) -> Iterator[Need]:
    last = status["last_round"]
    if last and last["outcome"] == "failed" and not status["round"]:
        yield Need(f"round {last['id']} failed: {last['reason']}", f"tao-daemon round show {last['id']}")


def is_open(rollout: Mapping[str, Any] | None) -> bool:
    """Whether the rollout still moves."""
    return rollout is not None and rollout["phase"] in ("staged", "shadow", "canary", "baking")
