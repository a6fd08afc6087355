"""What the screen decides: the winner among our columns, and TRL's best setting. Pure.

By the dev split, never by the held-out prompts whose scores are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def winner(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(column, setting) of the best tao_ cell. Raises ValueError before any ran."""
    best = _best([cell for cell in cells if cell["column"].startswith("tao_")], "a tao_ column")
    return best["column"], best["setting"]


def best_setting(cells: Sequence[Mapping[str, Any]], column: str) -> str:
    """The setting with which a column does best."""
    return str(_best([cell for cell in cells if cell["column"] == column], column)["setting"])


def _best(cells: Sequence[Mapping[str, Any]], what: str) -> Mapping[str, Any]:
    if not cells:
        raise ValueError(f"the screen has no cell of {what} yet; run --plan screen first")
    # Of equals the shorter answers: they cost less to serve.
    return max(cells, key=lambda cell: (dev_score(cell), -cell["rounds"][-1]["dev"]["mean_tokens"], cell["column"]))


def dev_score(cell: Mapping[str, Any]) -> float:
    """The last round's score on the dev split."""
    return float(cell["rounds"][-1]["dev"]["score"])
