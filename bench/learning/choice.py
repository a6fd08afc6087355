"""What the screen decides: the winner among our columns, and TRL's best setting. Pure.

By the dev split, never by the held-out prompts whose scores are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DEFAULT = ("tao_clipped_policy_gradient_strategies", "lr5e-4")
"""The product's own settings: what the final shows of them is what users get."""


def winner(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(column, setting) of the best tao_ cell, or DEFAULT where it is within the best's standard error; of those that
    were trained on as many prompts. Raises ValueError before any ran."""
    tao = [cell for cell in cells if cell["column"].startswith("tao_") and "prompts" not in cell["setting"]]
    ours = {(cell["column"], cell["setting"]): cell for cell in tao}
    best = _best(list(ours.values()), "a tao_ column")
    usual = ours.get(DEFAULT)
    if usual is not None and dev_score(usual) >= dev_score(best) - _standard_error(best):
        return DEFAULT
    return best["column"], best["setting"]


def best_setting(cells: Sequence[Mapping[str, Any]], column: str) -> str:
    """The setting with which a column does best."""
    return str(_best([cell for cell in cells if cell["column"] == column], column)["setting"])


def _best(cells: Sequence[Mapping[str, Any]], what: str) -> Mapping[str, Any]:
    if not cells:
        raise ValueError(f"the screen has no cell of {what} yet; run --plan screen first")
    # Of equals the shorter answers: they cost less to serve.
    return max(cells, key=lambda cell: (dev_score(cell), -cell["rounds"][-1]["dev"]["mean_tokens"], cell["column"]))


def _standard_error(cell: Mapping[str, Any]) -> float:
    """Of the dev score, from its 95 % interval."""
    dev = cell["rounds"][-1]["dev"]
    return float(dev["score_high"] - dev["score_low"]) / (2 * 1.96)


def dev_score(cell: Mapping[str, Any]) -> float:
    """The last round's score on the dev split."""
    return float(cell["rounds"][-1]["dev"]["score"])
