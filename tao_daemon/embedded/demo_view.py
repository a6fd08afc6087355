"""What there is to see of a running demo at one moment, and what changed between two of them, in lines.

Pure: the terminal display draws a view, a log file gets the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tao_daemon.embedded.producer import LiveAnswer

SETUP: Final[Mapping[str, str]] = {
    "model": "model: SmolLM2-135M-Instruct as a folder of safetensors",
    "broker": "Kafka broker",
    "vllm_start": "vLLM server with the real model, on the CPU",
    "daemon_start": "tao-daemon run, tao-daemon gateway",
}
"""The parts of the set-up, in order."""

OPEN_PHASES: Final = ("staged", "shadow", "canary", "baking")
PHASES: Final = ("claiming", "sampling", "scoring", "training", "evaluating")
_TICKETS_PER_LINE = 160
_QUARTERS = 4


@dataclass(frozen=True, slots=True)
class View:
    """`seconds` holds the finished parts; `doing` is the part of the set-up under way, "" afterwards."""

    elapsed: float = 0.0
    doing: str = ""
    note: str = ""
    """What that part says about itself."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    sent: int = 0
    live_requests: int = 0
    live_errors: int = 0
    live_error: str = ""
    """The latest error of a live question."""
    last_answer: LiveAnswer | None = None
    status: Mapping[str, Any] | None = None
    """GET /v1/status, None before the first."""
    reports: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """What `GET /v1/rounds/{id}` said last, by round."""

    @property
    def round(self) -> Mapping[str, Any] | None:
        return self.status["round"] if self.status else None

    @property
    def last_round(self) -> Mapping[str, Any] | None:
        return self.status["last_round"] if self.status else None

    @property
    def open_rollout(self) -> Mapping[str, Any] | None:
        """The rollout that is on its way."""
        rollout = self.status["rollout"] if self.status else None
        return rollout if rollout and rollout["phase"] in OPEN_PHASES else None

    @property
    def promoted(self) -> Mapping[str, Any] | None:
        """The rollout that has settled and serves."""
        rollout = self.status["rollout"] if self.status else None
        if self.status is None or not rollout or rollout["phase"] != "settled":
            return None
        return rollout if rollout["adapter"] == self.status["incumbent"]["adapter"] else None


def why_not(view: View) -> str:
    """Where a demo without a promotion stands, in words."""
    if view.doing:
        return f"it was still at: {SETUP.get(view.doing, view.doing)}"
    if view.round:
        running = view.round
        before = f"; round {view.last_round['id']} was {verdict(view.last_round)}" if view.last_round else ""
        return f"round {running['id']} was still {running['phase']} ({running['progress']:.0%}){before}"
    if view.open_rollout:
        return f"the rollout of {view.open_rollout['adapter']} was still in {rollout_line(view.open_rollout)}"
    if view.last_round:
        return f"round {view.last_round['id']} was {verdict(view.last_round)}"
    return "no round had started"


def verdict(last_round: Mapping[str, Any]) -> str:
    """The outcome of a finished round with its reason."""
    return f"{last_round['outcome']}: {last_round['reason']}"


def changes(before: View, after: View) -> Iterator[str]:
    """Lines for what happened between two views, oldest first; none when nothing worth a line did."""
    if after.doing and after.doing != before.doing:
        yield f"{SETUP.get(after.doing, after.doing)} …"
    if after.note and after.note != before.note:
        yield f"  {after.note}"
    for part in after.seconds:
        if part in SETUP and part not in before.seconds:
            yield f"{SETUP[part]}: ready after {after.seconds[part]:.0f} s"
    if after.sent // _TICKETS_PER_LINE > before.sent // _TICKETS_PER_LINE:
        yield traffic_line(after)
    yield from _round_changes(before, after)
    yield from _rollout_changes(before, after)
    if after.live_errors > before.live_errors:
        yield f"live question failed ({after.live_errors} of {after.live_requests}): {after.live_error}"


def _rollout_changes(before: View, after: View) -> Iterator[str]:
    rollout = after.status["rollout"] if after.status else None
    earlier = before.status["rollout"] if before.status else None
    if rollout is None or _place(rollout) == _place(earlier):
        return
    share = f" {rollout['traffic_fraction']:.0%} of the conversations" if rollout["phase"] == "canary" else ""
    yield f"rollout of {rollout['adapter']}: {rollout['phase']}{share}; {rollout['reason']}"


def _place(rollout: Mapping[str, Any] | None) -> tuple[Any, ...]:
    return (rollout["adapter"], rollout["phase"], rollout["step"]) if rollout else ()


def rollout_line(rollout: Mapping[str, Any]) -> str:
    """Where an open rollout stands, and what it waits for."""
    share = f" {rollout['traffic_fraction']:.0%}" if rollout["phase"] == "canary" else ""
    return f"{rollout['phase']}{share}: {rollout['hold']}"


def traffic_line(view: View) -> str:
    """Counts of what came in and of what the buffer made of it."""
    buffer = view.status["buffer"] if view.status else None
    if not buffer:
        return f"traffic: {view.sent} tickets sent"
    return (
        f"traffic: {view.sent} tickets sent; buffer: {buffer['train']} to train on, {buffer['held_out']} held out, "
        f"{buffer['excluded']} excluded, {buffer['clusters']} clusters"
    )


def _round_changes(before: View, after: View) -> Iterator[str]:
    running, was = after.round, before.round
    if running and (was is None or was["id"] != running["id"]):
        yield f"round {running['id']} starts: {running['reason']}"
    yield from _rewards(before, after)
    if running and _step(running) != _step(was):
        yield phase_line(running)
    last, earlier = after.last_round, before.last_round
    if last and (earlier is None or earlier["id"] != last["id"]):
        yield f"round {last['id']}, verdict: {verdict(last)}"
        if last["outcome"] != "accepted":
            yield "the served model stays as it is; the next round goes on with fresh tickets"


def phase_line(running: Mapping[str, Any]) -> str:
    """The running phase with its counts and the time left."""
    counts = f" {running['done']}/{running['total']}" if running["total"] else ""
    left = f", about {running['seconds_left']:.0f} s left" if running["seconds_left"] else ""
    return f"round {running['id']} {running['phase']}{counts}{left}"


def rewards_line(report: Mapping[str, Any] | None) -> str:
    """What scoring found, "" before it has."""
    scoring = (report or {}).get("phases", {}).get("scoring")
    if not scoring or "mean_reward" not in scoring:
        return ""
    return (
        f"mean reward {scoring['mean_reward']:.2f} ({scoring['mean_reward_plain']:.2f} for the tickets as they came); "
        f"{scoring['kept']} tickets can teach, {scoring['dropped']} cannot"
    )


def _rewards(before: View, after: View) -> Iterator[str]:
    for number, report in after.reports.items():
        line = rewards_line(report)
        if line and not rewards_line(before.reports.get(number)):
            yield f"round {number} scored: {line}"


def _step(running: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """What deserves a line of its own: each phase, and each quarter of it."""
    return (running["id"], running["phase"], int(running["progress"] * _QUARTERS)) if running else ()
