"""How a rollout looks: its steps, its evidence per arm, what holds it and which command moves it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tao_daemon.cli.durations import format_duration, moment
from tao_daemon.cli.headline import is_open
from tao_daemon.cli.output import Marks, number
from tao_daemon.cli.tables import View, facts, table

_COUNTS = ("conversations", "requests", "errors", "slow", "truncated")
_STYLES = {"done": "green", "now": "bold cyan", "ahead": "dim", "failed": "bold red", "held": "bold yellow"}


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the plan; `mark` names a field of Marks."""

    name: str
    mark: str
    note: str = ""


def render(status: Mapping[str, Any], now: float) -> View:
    """The latest rollout of a status, like `kubectl argo rollouts get rollout`."""
    rollout = status["rollout"]

    def draw(marks: Marks) -> RenderableType:
        head = facts([*_serving(status), *(_header(rollout, status["mode"], now) if rollout else _none(status))])
        if rollout is None:
            return head
        parts: list[RenderableType] = [head, Text(""), _tree(rollout, marks)]
        if rollout["evidence"] and rollout["phase"] != "staged":
            parts += [Text(""), _arms(rollout), Text(""), facts(_shadow(rollout))]
        return Group(*parts)

    return draw


def line(status: Mapping[str, Any]) -> str:
    """The same in a line that changes only when something does."""
    rollout = status["rollout"]
    if rollout is None:
        return "no rollout yet"
    share = f" {rollout['traffic_fraction']:.0%}" if rollout["phase"] == "canary" else ""
    why = rollout["hold"] if is_open(rollout) else rollout["reason"]
    return f"{rollout['adapter']} {rollout['phase']}{share}: {why}"


def steps(rollout: Mapping[str, Any]) -> list[Step]:
    """The plan of the rollout with how far it came."""
    names = _plan(rollout)
    if rollout["phase"] == "settled":
        return [Step(name, "done", _seen(rollout, at)) for at, name in enumerate(names)]
    place, ended = _place(rollout, len(names)), not is_open(rollout)
    here = "failed" if ended else "held" if rollout["paused_by"] or rollout["waits_for_approval"] else "now"
    marks = ["done" if at < place else here if at == place else "ahead" for at in range(len(names))]
    if ended:
        names[place] += f" ({rollout['phase'].replace('_', ' ')})"
    return [Step(name, mark, _seen(rollout, at)) for at, (name, mark) in enumerate(zip(names, marks, strict=True))]


def moves(rollout: Mapping[str, Any], mode: str) -> list[str]:
    """Commands that a person may give it now, each with what it does."""
    phase = rollout["phase"]
    if not is_open(rollout):
        if phase == "settled":
            return ['rollout undo --reason "why"    the version before serves again, at once']
        return [f"round show {rollout['round']}                 what the gate found"]
    if rollout["paused_by"]:
        first = ['rollout resume --reason "why"    let it move again']
    elif rollout["waits_for_approval"]:
        first = ['rollout approve --reason "why"   let it go on to live traffic']
    elif phase == "staged" or mode == "observe":
        first = []
    else:
        ends = "the rest of baking" if phase == "baking" else f"what is left of the {phase}"
        first = [f'rollout promote --reason "why"   skip {ends}', 'rollout pause --reason "why"     hold it here']
    return [*first, 'rollout abort --reason "why"     end it']


def evidence_in_words(rollout: Mapping[str, Any]) -> str:
    """What was counted so far, in a line."""
    found = rollout["evidence"]
    parts = []
    if found.get("shadow_pairs"):
        mean = number(found.get("shadow_mean_difference"), "+.3f")
        parts.append(f"shadow {_pairs(found)}, mean difference {mean}")
    if found.get("candidate_conversations"):
        arms = []
        for arm in ("candidate", "incumbent"):
            counts = ", ".join(f"{found.get(f'{arm}_{name}') or 0:.0f} {name}" for name in _COUNTS[2:])
            arms.append(f"{arm} {found.get(f'{arm}_conversations') or 0:.0f} conversations ({counts})")
        parts.append("; ".join(arms))
    return "; ".join(parts)


def history(rollouts: Sequence[Mapping[str, Any]]) -> View:
    """Every rollout with its steps, the latest first."""

    def draw(marks: Marks) -> RenderableType:
        if not rollouts:
            return Text("no rollout yet; a candidate that passes the gate begins one")
        rows: list[Sequence[RenderableType]] = []
        for rollout in rollouts:
            for at, step in enumerate(rollout["steps"]):
                first = (rollout["adapter"], str(rollout["round"])) if at == 0 else ("", "")
                where = f"canary {step['fraction']:.0%}" if step["phase"] == "canary" else step["phase"]
                rows.append((*first, moment(step["at"]), where.replace("_", " "), step["actor"], step["note"]))
        return table(("adapter", "round", "when (UTC)", "step", "who", "note"), rows, numbers=("round",))

    return draw


def _serving(status: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    incumbent = status["incumbent"]
    yield "serving", f"{incumbent['adapter'] or 'base model'} (generation {incumbent['generation']})"
    if status["returning_to"]:
        yield "undo", f"to {status['returning_to']}: being loaded and verified"


def _none(status: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    yield "rollout", "none yet; a candidate that passes the gate begins one"
    yield "mode", status["mode"]


def _header(rollout: Mapping[str, Any], mode: str, now: float) -> Iterator[tuple[str, RenderableType]]:
    yield "rollout", f"{rollout['adapter']} of round {rollout['round']}"
    share = f", {rollout['traffic_fraction']:.0%} of the conversations" if rollout["phase"] == "canary" else ""
    yield "status", f"{rollout['phase'].replace('_', ' ')}{share} since {format_duration(now - rollout['since'])}"
    yield "started", f"{moment(rollout['started_at'])} ({format_duration(now - rollout['started_at'])} ago)"
    yield "mode", f"{mode}, approved by {rollout['approved_by']}" if rollout["approved_by"] else mode
    yield "held by" if is_open(rollout) else "why", (rollout["hold"] if is_open(rollout) else rollout["reason"]) or "-"
    if rollout["shadow"]:
        yield "shadow", rollout["shadow"]
    label = "to move it" if is_open(rollout) else "next"
    for command in moves(rollout, mode):
        yield label, f"tao-daemon {command}"
        label = ""


def _tree(rollout: Mapping[str, Any], marks: Marks) -> RenderableType:
    lines = Text()
    for at, step in enumerate(steps(rollout)):
        sign = getattr(marks, step.mark)
        note = f"  {step.note}" if step.note else ""
        lines.append(f"{'' if at == 0 else chr(10)}  {sign} {step.name}{note}", style=_STYLES[step.mark])
    return lines


def _arms(rollout: Mapping[str, Any]) -> RenderableType:
    found = rollout["evidence"]
    rows: list[Sequence[RenderableType]] = []
    for name in _COUNTS:
        arms = [number(found.get(f"{arm}_{name}"), ".0f") for arm in ("incumbent", "candidate")]
        rows.append((name, *arms, *_evidence(found, name)))
    rows.append(("error rate", "", "", *_evidence(found, "error_rate")))
    columns = ("evidence", "incumbent", "candidate", "e-value", "aborts at")
    return table(columns, rows, numbers=columns[1:])


def _evidence(found: Mapping[str, Any], name: str) -> tuple[str, str]:
    if f"evidence_{name}" not in found:
        return "", ""
    return number(found[f"evidence_{name}"], ".3g"), number(found[f"threshold_{name}"], ".3g")


def _shadow(rollout: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    found = rollout["evidence"]
    mean = number(found.get("shadow_mean_difference"), "+.3f")
    skipped, failed = found.get("shadow_skipped") or 0, found.get("shadow_candidate_failures") or 0
    yield "shadow", f"{_pairs(found)}, mean difference {mean}, {skipped:.0f} skipped, {failed:.0f} candidate failures"
    yield "not inferior", "e-value {} of {} needed".format(*_evidence(found, "not_inferior"))
    yield "worse", "e-value {}, aborts at {}".format(*_evidence(found, "worse"))


def _pairs(found: Mapping[str, Any]) -> str:
    return f"{found.get('shadow_pairs') or 0:.0f} pairs ({found.get('shadow_pairs_wanted') or 0:.0f} needed)"


def _plan(rollout: Mapping[str, Any]) -> list[str]:
    shares = [f"canary {fraction:.0%}" for fraction in rollout["plan"]["fractions"]]
    return ["staged", "shadow", *shares, "baking", "settled"]


def _seen(rollout: Mapping[str, Any], place: int) -> str:
    """What was counted in a canary step; in baking evidence starts afresh, and then that is all there is."""
    counted = rollout["steps"]
    if rollout["phase"] not in ("canary", "aborted") or not 0 <= place - 2 < len(counted):
        return ""
    arm = counted[place - 2]["candidate"]
    return f"{arm['conversations']} conversations, {arm['errors']} errors, {arm['slow']} slow"


def _place(rollout: Mapping[str, Any], length: int) -> int:
    """Index of the step it is in, or ended in."""
    phase = rollout["phase"]
    canary = min(2 + int(rollout["step"]), length - 3)
    if is_open(rollout):
        return int({"staged": 0, "shadow": 1, "canary": canary, "baking": length - 2}[phase])
    if phase == "rolled_back":
        return length - 1
    if rollout["steps"]:
        return canary
    return 1 if rollout["evidence"].get("shadow_pairs") else 0
