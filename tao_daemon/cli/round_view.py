"""How rounds look: a list, one round's report, two rounds compared, a replay. Pure: documents become views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tao_daemon.cli.durations import format_duration, moment
from tao_daemon.cli.output import Marks, bar, clean, number, spark
from tao_daemon.cli.tables import View, facts, table

OUTCOMES = {"accepted": "green", "failed": "red", "rejected": "yellow"}
_PHASES = ("claiming", "sampling", "scoring", "training", "evaluating")
_TOLD = {
    "claiming": ("prompts", "rehearsed"),
    "sampling": ("groups", "completions", "tokens", "entropy"),
    "scoring": ("kept", "dropped", "mean_reward", "mean_reward_plain"),
    "training": ("steps", "samples", "carried_groups", "kl", "tokens_per_second"),
    "evaluating": ("prompts",),
}
"""What of each phase's figures a reader wants first; `--json` has all."""

Report = Mapping[str, Any]
Row = tuple[str, RenderableType]


def listing(reports: Sequence[Report]) -> View:
    """One line per round."""

    def draw(marks: Marks) -> RenderableType:
        if not reports:
            return Text("no round yet; `tao-daemon status` says what the first one waits for")
        columns = ("round", "outcome", "gain", "95 %", "took", "started (UTC)", "candidate", "why")
        return table(columns, [_line(report) for report in reports], numbers=("round", "gain", "took"))

    return draw


def report(found: Report, rewards: Report | None) -> View:
    """Everything that decides whether to believe a round."""

    def draw(marks: Marks) -> RenderableType:
        parts: list[RenderableType] = [facts(_head(found))]
        if verdict := found.get("verdict"):
            parts += [Text(""), facts([*_gate(verdict), *_criteria(found.get("explanation") or (), marks)])]
        if found.get("phases"):
            parts += [Text(""), _phases(found["phases"], marks)]
        if rewards and rewards["strategies"]:
            parts += [Text(""), _rewards(rewards, marks)]
        return Group(*parts)

    return draw


def comparison(found: Report) -> View:
    """Two rounds, figure by figure."""
    columns = ("figure", f"round {found['left']}", f"round {found['right']}", "change")

    def draw(marks: Marks) -> RenderableType:
        rows = [
            (row["name"], _value(row["left"], row["name"]), _value(row["right"], row["name"]), _change(row["change"]))
            for row in found["rows"]
        ]
        return table(columns, rows, numbers=columns[3:])

    return draw


def replay(found: Report) -> View:
    """What was decided again, and whether it came out the same."""

    def draw(marks: Marks) -> RenderableType:
        signs = {True: Text(marks.done, "green"), False: Text(marks.failed, "bold red"), None: Text("-", "dim")}
        rows = [
            (signs[check["same"]], check["name"], _value(check["recorded"]), _value(check["replayed"]))
            for check in found["checks"]
        ]
        verdict = "comes out the same" if found["matches"] else "does NOT come out the same"
        style = "green" if found["matches"] else "bold red"
        note = [Text(found["note"])] if found.get("note") else []
        return Group(
            table(("same", "what", "recorded", "replayed"), rows),
            Text(""),
            Text(f"round {found['round']} {verdict}", style=style),
            *note,
        )

    return draw


def seconds(found: Report) -> float:
    """Sum over the phases."""
    return float(sum(phase.get("seconds") or 0.0 for phase in (found.get("phases") or {}).values()))


def _line(found: Report) -> tuple[RenderableType, ...]:
    numbers = (found.get("verdict") or {}).get("numbers") or {}
    outcome = found.get("outcome", "running")
    return (
        str(found["round"]),
        Text(outcome, style=OUTCOMES.get(outcome, "")),
        number(numbers.get("difference"), "+.3f"),
        _interval(numbers, "difference") or "-",
        format_duration(seconds(found)),
        moment(found.get("started_at")),
        found.get("candidate") or "-",
        found.get("outcome_reason", ""),
    )


def _head(found: Report) -> Iterator[Row]:
    outcome = found.get("outcome", "not ended")
    yield "round", Text.assemble(f"{found['round']} ", (outcome, OUTCOMES.get(outcome, "bold")))
    if found.get("outcome_reason"):
        yield "why", found["outcome_reason"]
    yield "started", f"{moment(found.get('started_at'))} UTC, took {format_duration(seconds(found))}"
    if found.get("reason"):
        yield "because", found["reason"]
    yield "incumbent", found.get("incumbent") or "base model"
    yield "candidate", found.get("candidate") or "none"


def _gate(verdict: Report) -> Iterator[Row]:
    numbers = verdict.get("numbers") or {}
    yield "gate", Text(str(verdict.get("decision")), style="bold")
    for name in ("incumbent_score", "candidate_score"):
        if name in numbers:
            yield name.partition("_")[0], f"{number(numbers[name])} {_interval(numbers, name, '.3f')}"
    if "difference" in numbers:
        share = f" ({numbers['confidence']:.0%})" if numbers.get("confidence") else ""
        surer = _bounds(numbers.get("studentised_low"), numbers.get("studentised_high"), "+.3f")
        figures = f"{number(numbers['difference'], '+.3f')} {_interval(numbers, 'difference')}{share}"
        yield "gain", f"{figures}, studentised {surer}" if surer else figures


def _criteria(explanation: Sequence[Report], marks: Marks) -> Iterator[Row]:
    """Every criterion of the gate in words, with how it came out."""
    signs = {True: (marks.done, "green"), False: (marks.failed, "bold red"), None: ("-", "dim")}
    for at, each in enumerate(explanation):
        yield "criteria" if at == 0 else "", Text.assemble(signs[each["passed"]], f" {clean(each['text'])}")


def _interval(numbers: Report, name: str, form: str = "+.3f") -> str:
    return _bounds(numbers.get(f"{name}_low"), numbers.get(f"{name}_high"), form)


def _bounds(low: Any, high: Any, form: str) -> str:
    return f"[{number(low, form)}, {number(high, form)}]" if low is not None and high is not None else ""


def _phases(phases: Report, marks: Marks) -> RenderableType:
    whole = sum(phase.get("seconds") or 0.0 for phase in phases.values()) or 1.0
    rows = []
    for name in sorted(phases, key=lambda name: _PHASES.index(name) if name in _PHASES else len(_PHASES)):
        figures = phases[name]
        took = figures.get("seconds") or 0.0
        told = ", ".join(
            f"{_value(figures[key])} {key.replace('_', ' ')}" for key in _TOLD.get(name, ()) if key in figures
        )
        rows.append((name, format_duration(took), bar(took / whole, marks, 16), told))
    return table(("phase", "took", "share", "what"), rows, numbers=("took",))


def _rewards(found: Report, marks: Marks) -> RenderableType:
    rows = [
        (
            each["name"],
            str(each["completions"]),
            str(each["scored"]),
            number(each["mean"]),
            f"0 {spark(each['counts'], marks)} 1",
        )
        for each in found["strategies"]
    ]
    note = f"{found['kept']} of {found['groups']} groups kept, {found['dropped']} dropped"
    columns = ("rewards", "completions", "scored", "mean", "distribution")
    return Group(table(columns, rows, numbers=columns[1:4]), Text(note, style="dim"))


def _value(value: Any, name: str = "") -> str:
    if value is None:
        return "-"
    if name.endswith("_at") and isinstance(value, int | float):
        return moment(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _change(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:+.4g}"
