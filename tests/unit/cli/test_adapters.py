"""Adapters as a list and one by one, damaged ones included."""

from __future__ import annotations

from dataclasses import asdict

from tao_daemon.cli.adapters import describe, row
from tao_daemon.domain.adapter import Lineage, OffsetRange

LINEAGE = Lineage(
    round=7,
    parent=None,
    base_model="/models/m",
    base_digest="b" * 64,
    prompt_ids=("p1", "p2"),
    scorers=("form",),
    config_digest="c" * 64,
    offsets=(OffsetRange("prompts", 0, 3, 9), OffsetRange("prompts", 1, 0, 4)),
)
WHOLE = {
    "name": "000007-bbb",
    "digest": "d" * 64,
    "rank": 16,
    "created_at": 1_700_000_000.0,
    "lineage": {**asdict(LINEAGE), "prompt_ids": 2},
    "problem": None,
}
DAMAGED = {"name": "000003-aaa", "problem": "weights.safetensors does not match the manifest"}


def test_a_line_says_what_it_does_now() -> None:
    roles = {"000007-bbb": "serves", None: "undo goes to"}
    assert row(WHOLE, roles) == ("000007-bbb", "7", "base model", "16", "2", "2023-11-14 22:13:20", "serves")
    assert row(DAMAGED, roles)[-1] == DAMAGED["problem"]


def test_where_it_comes_from() -> None:
    found = dict(describe(WHOLE))
    assert found["offsets"] == "prompts/0 3-9\nprompts/1 0-4"
    assert found["parent"] == "base model"
    assert "round show 7" in found["round"]
    assert "problem" not in found


def test_a_damaged_one_is_shown_with_its_problem() -> None:
    assert describe(DAMAGED) == [("adapter", "000003-aaa"), ("problem", DAMAGED["problem"])]
