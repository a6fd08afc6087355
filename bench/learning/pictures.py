"""Pictures of the proof table as SVG: the same cells give the same bytes.

cells → scores per column, score by round, score against distance → docs/pictures/results/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from bench.learning.tables import BASE, Cells, Row, curve

_STYLE = {"svg.hashsalt": "tao-daemon", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
          "axes.spines.right": False, "figure.dpi": 100}  # fmt: skip
_COLOURS = {"base": "#888888", "labelled": "#b8860b", "trl_grpo": "#3b6ea5"}
_OURS = ("#2e7d32", "#7b1fa2", "#c62828", "#00838f")


def scores(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Held-out score per column with its interval."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 0.6 + 0.32 * len(rows)))
        for place, row in enumerate(reversed(rows)):
            error = [[row.score.mean - row.score.low], [row.score.high - row.score.mean]]
            axes.barh(place, row.score.mean, xerr=error, color=colour(row.column), height=0.6, ecolor="#333333")
        axes.set_yticks(range(len(rows)), [_name(row) for row in reversed(rows)])
        axes.set_xlim(0, 1)
        axes.set_xlabel("held-out score, 95 % interval")
        axes.set_title(title)
        _save(figure, path)


def rounds(path: Path, title: str, columns: Mapping[str, Cells]) -> None:
    """Score after each round; the base model at round 0 for all."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.2))
        start = curve(columns[BASE])[0] if BASE in columns else None
        for column, cells in sorted(columns.items()):
            if column == BASE:
                continue
            found = [*([start] if start else []), *curve(cells)]
            xs = range(0 if start else 1, len(found) + (0 if start else 1))
            axes.plot(xs, [each.mean for each in found], marker="o", color=colour(column), label=column)
            axes.fill_between(
                xs, [e.low for e in found], [e.high for e in found], color=colour(column), alpha=0.12, linewidth=0
            )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(0, 1)
        axes.set_xlabel("round")
        axes.set_ylabel("held-out score")
        axes.set_title(title)
        axes.legend(frameon=False)
        _save(figure, path)


def distance(path: Path, title: str, rows: Sequence[Row]) -> bool:
    """Score against KL to the base model; False, and no picture, where no distance was measured."""
    measured = [row for row in rows if row.kl is not None]
    if not measured:
        return False
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.6))
        for row in measured:
            axes.scatter(row.kl, row.score.mean, color=colour(row.column), s=28)
            axes.annotate(_name(row), (row.kl, row.score.mean), xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.set_xlabel("KL to the base model, nats per answer")
        axes.set_ylabel("held-out score")
        axes.set_title(title)
        _save(figure, path)
    return True


def colour(column: str) -> str:
    """One colour per column, the same in every picture; with strategies as without."""
    algorithms = ("clipped_policy_gradient", "grpo", "oapl", "raft")
    found = [c for name, c in zip(algorithms, _OURS, strict=True) if name == column[4:].removesuffix("_strategies")]
    return _COLOURS.get(column) or (found[0] if found else "#555555")


def _name(row: Row) -> str:
    return f"{row.column} {row.setting}".strip()


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
