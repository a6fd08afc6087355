"""How both answers to held-out prompts look side by side. Pure. The only view with text of prompts in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tao_daemon.cli.output import ASCII, Marks, clean, number
from tao_daemon.cli.tables import View

_SIDES = ("incumbent", "candidate")


def side_by_side(found: Mapping[str, Any]) -> View:
    """Wins and losses; then each prompt with its answers, in two columns in a terminal, else one below the other."""

    def draw(marks: Marks) -> RenderableType:
        shape = _below if marks is ASCII else _columns
        parts: list[RenderableType] = [Text(""), Text(_score(found), style="bold")]
        for place, row in enumerate(found["rows"], start=1):
            head = f"{place}. {number(row['difference'], '+.2f')}  prompt {row['prompt_id']}"
            prompt = row["prompt"] if row["prompt"] is not None else "(erased)"
            parts += [Text(""), Text(head, style="bold cyan"), Text(clean(prompt)), Text(""), shape(row)]
        return Group(*parts)

    return draw


def _score(found: Mapping[str, Any]) -> str:
    counts = f"{found['wins']} wins, {found['ties']} ties, {found['losses']} losses of the candidate"
    if found["win_rate"] is None:
        return counts
    low, high = found["win_rate_ci95"]
    return f"{counts}: win rate {found['win_rate']:.2f} [{low:.2f}, {high:.2f}]"


def _title(row: Mapping[str, Any], side: str) -> str:
    cut = ", cut off" if row[f"{side}_truncated"] else ""
    return f"{side} {number(row[f'{side}_score'], '.2f')} ({row[f'{side}_tokens']} tokens{cut})"


def _columns(row: Mapping[str, Any]) -> RenderableType:
    made = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for side in _SIDES:
        made.add_column(_title(row, side), ratio=1, overflow="fold")
    made.add_row(*(Text(clean(row[f"{side}_text"])) for side in _SIDES))
    return made


def _below(row: Mapping[str, Any]) -> RenderableType:
    lines = []
    for side in _SIDES:
        lines += [f"--- {_title(row, side)}", clean(row[f"{side}_text"])]
    return Text("\n".join(lines))
