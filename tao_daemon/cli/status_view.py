"""How `tao-daemon status` looks. Pure: a status and a time become a view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from tao_daemon.cli.durations import format_duration, moment
from tao_daemon.cli.headline import is_open, undo_ends_canary
from tao_daemon.cli.output import Marks, bar
from tao_daemon.cli.rollout_view import evidence_in_words
from tao_daemon.cli.tables import View, facts

Row = tuple[str, RenderableType]

_OUTCOMES = {"accepted": "green", "failed": "red", "rejected": "yellow"}


def render(status: Mapping[str, Any], now: float) -> View:
    """One look at everything."""

    def draw(marks: Marks) -> RenderableType:
        rows: list[Row] = [*_needs(status, marks), *_serving(status, now), *_round(status, marks, now)]
        rows += [*_last_round(status, now), *_rollout(status, now), *_fleet(status), *_data(status)]
        return facts(rows)

    return draw


def line(status: Mapping[str, Any]) -> str:
    """The same in a line that changes only when something does."""
    parts = [f"serving {_name(status['incumbent']['adapter'])}"]
    if running := status["round"]:
        parts.append(f"round {running['id']} {running['phase']} {int(running['progress'] * 10) * 10} %")
    rollout = status["rollout"]
    if is_open(rollout):
        parts.append(f"rollout {rollout['adapter']} {stage(rollout)}: {rollout['hold']}")
    if status["returning_to"]:
        parts.append(f"going back to {status['returning_to']}")
    fleet = status["fleet"]
    parts += [f"not reachable: {each['url']}" for each in fleet["replicas"] if _is_away(each)]
    parts += [f"not ready: {url}" for url in fleet["unready"]]
    if status["intake"] not in ("consuming", "off"):
        parts.append(f"intake {status['intake']}")
    return " | ".join(parts)


def stage(rollout: Mapping[str, Any]) -> str:
    """The phase, in the canary with its share."""
    phase = str(rollout["phase"]).replace("_", " ")
    return f"{phase} {rollout['traffic_fraction']:.0%}" if phase == "canary" else phase


def _needs(status: Mapping[str, Any], marks: Marks) -> Iterator[Row]:
    label = "needs you"
    for need in status["needs"]:
        yield label, Text(need["text"], style="bold yellow" if need["severity"] == "decision" else "bold red")
        if need["command"]:
            yield "", Text(f"{marks.arrow} {need['command']}", style="yellow")
        label = ""
    if label:
        yield label, Text("nothing", style="green")


def _serving(status: Mapping[str, Any], now: float) -> Iterator[Row]:
    incumbent = status["incumbent"]
    since = f" since {moment(incumbent['since'])} ({_ago(incumbent['since'], now)})" if incumbent["since"] else ""
    yield "serving", f"{_name(incumbent['adapter'])}{since}, generation {incumbent['generation']}"
    if undo_ends_canary(status):
        ends = f"it ends the canary of {status['rollout']['adapter']}"
        another = f"; another goes to {_name(incumbent['previous'])}" if incumbent["adapter"] else ""
        yield "undo goes to", f"{_name(incumbent['adapter'])} alone: {ends}{another}"
    elif incumbent["adapter"]:
        yield "undo goes to", _name(incumbent["previous"])
    if status["returning_to"]:
        yield "undo", f"to {status['returning_to']}: being loaded and verified"


def _round(status: Mapping[str, Any], marks: Marks, now: float) -> Iterator[Row]:
    running = status["round"]
    if running is None:
        due = status["next_round"]["due"]
        yield "round", f"starts as soon as it can: {due}" if due else f"none runs: {status['next_round']['trigger']}"
        return
    counts = f" {running['done']}/{running['total']}" if running["total"] else ""
    left = f", {format_duration(running['seconds_left'])} left" if running["seconds_left"] is not None else ""
    attempt = f" (attempt {running['attempt']})" if running["attempt"] > 1 else ""
    yield (
        "round",
        Text.assemble(
            f"{running['id']} {running['phase']}{attempt}  ",
            (bar(running["progress"], marks), "cyan"),
            f"  {running['progress']:.0%}{counts}{left}",
        ),
    )
    yield "", f"started {_ago(running['started_at'], now)}: {running['reason']}"
    if held := running.get("held"):
        yield "", held


def _last_round(status: Mapping[str, Any], now: float) -> Iterator[Row]:
    last = status["last_round"]
    if last is None:
        return
    ended = f", ended {_ago(last['ended_at'], now)}" if last.get("ended_at") else ""
    style = _OUTCOMES.get(last["outcome"], "")
    yield "last round", Text.assemble(f"{last['id']} ", (last["outcome"], style), f"{ended}: {last['reason']}")


def _rollout(status: Mapping[str, Any], now: float) -> Iterator[Row]:
    rollout = status["rollout"]
    if rollout is None:
        yield "rollout", f"none yet (mode {status['mode']})"
        return
    why = rollout["hold"] if is_open(rollout) else rollout["reason"]
    style = {"settled": "green", "aborted": "red", "rolled_back": "red"}.get(rollout["phase"], "cyan")
    yield (
        "rollout",
        Text.assemble(
            f"{rollout['adapter']} ", (stage(rollout), style), f" since {_age(rollout['since'], now)}: {why}"
        ),
    )
    if is_open(rollout) and (words := evidence_in_words(rollout)):
        yield "", words


def _fleet(status: Mapping[str, Any]) -> Iterator[Row]:
    fleet = status["fleet"]
    yield "clients", _clients(status["clients"])
    behind = f", with older routes: {', '.join(fleet['behind'])}" if fleet["behind"] else ""
    yield "gateways", Text.assemble(str(fleet["gateways"] or "none"), (behind, "bold red"))
    label = "servers"
    for replica in fleet["replicas"]:
        word, style = _readiness(replica)
        why = f": {'; '.join(replica['problems'])}" if replica["problems"] else ""
        yield label, Text.assemble(f"{replica['url']} ", (word, style), why)
        label = ""


def _clients(clients: Sequence[Mapping[str, Any]]) -> Text:
    """What they met within the last minutes, by version."""
    parts = [
        Text(
            f"{each['kind']} {each['failed']} of {each['requests']} failed", style="bold red" if each["failed"] else ""
        )
        for each in clients
    ]
    return Text(", ").join(parts) if parts else Text("no request within the last minutes")


def _readiness(replica: Mapping[str, Any]) -> tuple[str, str]:
    """A word and its style."""
    if replica["ready"]:
        return "ready", "green"
    if replica["reachable"]:
        return "not ready", "bold red"
    return ("not reachable", "bold red") if _is_away(replica) else ("not looked at yet", "")


def _is_away(replica: Mapping[str, Any]) -> bool:
    """What was not looked at yet has no problem."""
    return bool(replica["problems"]) and not replica["reachable"]


def _data(status: Mapping[str, Any]) -> Iterator[Row]:
    buffer = status["buffer"]
    if buffer is None:
        yield "buffer", Text("does not answer", style="bold red")
    else:
        yield (
            "buffer",
            f"{buffer['train']} train ({buffer['train_available']} fresh), {buffer['held_out']} held-out "
            f"({buffer['held_out_available']} fresh), {buffer['excluded']} excluded, {buffer['clusters']} clusters",
        )
    lag = status.get("intake_lag_records")
    behind = f", {lag} records behind" if lag else ", up to date" if lag == 0 else ""
    yield "intake", f"{status['intake'].replace('_', ' ')}{behind}"


def _name(adapter: str | None) -> str:
    return adapter or "base model"


def _age(at: float, now: float) -> str:
    return format_duration(now - at)


def _ago(at: float, now: float) -> str:
    return f"{format_duration(now - at)} ago"
