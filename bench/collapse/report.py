"""The summary of what was measured, for programs, and a picture of it for people.

bench/results/collapse/* → bench/results/collapse.json, docs/pictures/results/collapse.svg
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from bench.collapse.real import GATED, OPEN, read
from bench.collapse.rows import Row, notices
from bench.publishing import publish

FIGURES = ("truth", "tokens", "entropy")
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "results" / "collapse.svg"
_STYLE = {"svg.hashsalt": "tao-daemon", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False,
          "axes.spines.right": False, "figure.dpi": 100}  # fmt: skip
_GOOD, _BAD, _THIRD = "#2e7d32", "#c62828", "#3b6ea5"
Courses = Sequence[dict[str, Any]]


def main(folder: Path) -> None:
    """From whatever is there. Says nothing when nothing is."""
    path = folder / "simulation.json"
    simulated = json.loads(path.read_text()) if path.is_file() else []
    found = {each.name: read(folder / f"{each.name}.jsonl") for each in (GATED, OPEN)}
    summary = {
        "real": {name: line(rows) for name, rows in found.items() if len(rows) > 1},
        "simulated": scenarios(simulated),
    }
    rows = [{"course": f"real, {name}", **_shown(each)} for name, each in summary["real"].items()]
    rows += [{"course": name, **_shown(each)} for name, each in summary["simulated"].items()]
    if rows:
        publish("collapse", rows, summary)
        _draw(found, simulated)


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    shown = {name: f"{found[f'{name}_before']:.2f} → {found[f'{name}_after']:.2f}" for name in FIGURES}
    return {**shown, "passed": found["accepted"], "noticed": ", ".join(list(found["noticed"])[:2])}


def line(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A line on the real model. Entropy is that of what serves, as the next round sampled it."""
    start, rounds = rows[0], rows[1:]
    measured = [row["numbers"] for row in rounds if row["numbers"]]
    return {
        "rounds": len(rounds),
        "outcomes": dict(Counter(row["outcome"] for row in rounds)),
        "accepted": sum(row["outcome"] == "accepted" for row in rounds),
        "truth_before": start["truth"],
        "truth_after": rounds[-1]["truth"],
        "truth_lowest": min(row["truth"] for row in rounds),
        "tokens_before": start["tokens"],
        "tokens_after": rounds[-1]["tokens"],
        "entropy_before": rounds[0]["meters"]["entropy"],
        "entropy_after": rounds[-1]["meters"]["entropy"],
        "distinct_2_before": rounds[0]["meters"].get("distinct_2"),
        "distinct_2_after": rounds[-1]["meters"].get("distinct_2"),
        "candidates_truth_difference": [numbers.get("difference") for numbers in measured],
        "candidates_kl_to_base": [numbers.get("kl_to_base") for numbers in measured],
        "against": dict(Counter(name for row in rounds for name in row["against"])),
        "noticed": {notice.by: notice.round for notice in notices([_row(row) for row in rounds])},
        "seconds_per_round": statistics.median(row["seconds"] for row in rounds),
    }


def _row(content: Mapping[str, Any]) -> Row:
    return Row(**{field.name: content[field.name] for field in fields(Row)})


def scenarios(courses: Courses) -> dict[str, dict[str, Any]]:
    by_name = defaultdict(list)
    for course in courses:
        by_name[course["scenario"]].append(course)
    return {name: _scenario(found) for name, found in by_name.items()}


def _scenario(courses: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; `noticed` gives the first round of each seed, the earliest first."""
    noticed = defaultdict(list)
    for course in courses:
        for by, number in course["noticed"].items():
            noticed[by].append(number)
    found: dict[str, Any] = {"seeds": len(courses)}
    for name in FIGURES:
        found[f"{name}_before"] = courses[0][name][0]
        found[f"{name}_after"] = statistics.fmean(course[name][-1] for course in courses)
        found[f"{name}_lowest"] = min(min(course[name]) for course in courses)
        found[f"{name}_highest"] = max(max(course[name]) for course in courses)
    found["accepted"] = sum(course["outcomes"].count("accepted") for course in courses) / len(courses)
    found["failed"] = sum(course["outcomes"].count("failed") for course in courses) / len(courses)
    found["noticed"] = dict(sorted(noticed.items(), key=lambda each: (min(each[1]), each[0])))
    return found


def _draw(lines: dict[str, list[dict[str, Any]]], simulated: Courses) -> None:
    with plt.rc_context(_STYLE):
        height = 2 if any(len(rows) > 1 for rows in lines.values()) else 1
        figure, grid = plt.subplots(height, 3, figsize=(9.6, 2.6 * height), layout="constrained", squeeze=False)
        if height > 1:
            _real(grid[0], lines)
        low = grid[-1]
        _curves(low[0], simulated, "truth", "a judge that can be fooled: true score", {
            "fooled judge with decoys": ("decoys", _GOOD),
            "fooled judge, no decoys, gate verifies": ("no decoys, gate verifies", _THIRD),
            "fooled judge, no decoys, judges itself": ("no decoys, it judges itself", _BAD),
        })  # fmt: skip
        _curves(low[1], simulated, "truth", "noise: true score", {
            "noise, gate verifies": ("gate verifies", _GOOD),
            "noise judges itself": ("it judges itself", _THIRD),
            "noise, everything accepted": ("no gate", _BAD),
        })  # fmt: skip
        _curves(low[2], simulated, "tokens", "a scorer that likes length: tokens", {
            "length judges itself": ("it judges itself", _GOOD),
            "length, everything accepted": ("no gate", _BAD),
        })  # fmt: skip
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(PICTURE, metadata={"Date": None})
        plt.close(figure)


def _real(axes: Sequence[Any], lines: dict[str, list[dict[str, Any]]]) -> None:
    for name, colour, label in ((GATED.name, _GOOD, "gate"), (OPEN.name, _BAD, "no gate")):
        rows, rounds = lines[name], lines[name][1:]
        if not rounds:
            continue
        axes[0].plot([row["round"] for row in rows], [row["truth"] for row in rows], color=colour, label=label)
        places = [row["round"] - 1 for row in rounds]
        axes[1].plot(places, [row["meters"]["entropy"] for row in rounds], color=colour, label=label)
        far = [(row["round"], row["numbers"]["kl_to_base"]) for row in rounds if "kl_to_base" in row["numbers"]]
        axes[2].plot(*zip(*far, strict=True), color=colour, marker=".", label=label)
    titles = ("real model, noise: true score of what serves", "entropy of what serves, nats per token",
              "candidates: KL to base, nats per answer")  # fmt: skip
    for each, title in zip(axes, titles, strict=True):
        _finish(each, title)


def _curves(axes: Any, simulated: Courses, figure: str, title: str, wanted: dict[str, tuple[str, str]]) -> None:
    for course in simulated:
        if course["scenario"] in wanted:
            label, colour = wanted[course["scenario"]]
            first = course["seed"] == 1
            axes.plot(course[figure], color=colour, alpha=0.8, linewidth=1.0, label=label if first else None)
    _finish(axes, "simulated, " + title)


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("round")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=7)
