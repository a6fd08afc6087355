"""Rounds on the real model, without it: lines that survive an interruption, prompts for every round, the summary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.collapse.real import GATE, GATED, HELD_OUT, OPEN, PROMPTS, SEED, TASK, read, write
from bench.collapse.report import line
from bench.collapse.rows import Row
from bench.learning.tasks.task import Split


def test_a_torn_line_is_left_out_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "gate.jsonl"
    assert read(path) == []
    write(path, {"round": 0})
    write(path, {"round": 1})
    whole = path.read_text()
    path.write_text(whole + '{"round": 2, "tru')
    assert read(path) == [{"round": 0}, {"round": 1}]
    assert path.read_text() == whole
    write(path, {"round": 2})
    assert [row["round"] for row in read(path)] == [0, 1, 2]


def test_every_round_has_its_prompts() -> None:
    for number in range(1, max(GATED.rounds, OPEN.rounds) + 1):
        assert len(TASK.items(Split.TRAIN, 100 * SEED + number, PROMPTS)) == PROMPTS
        assert len(TASK.items(Split.DEV, 100 * SEED + number, GATE.prompts)) == GATE.prompts
    assert len(TASK.items(Split.HELD_OUT, SEED, HELD_OUT)) == HELD_OUT


def test_the_summary_of_a_line() -> None:
    rows: list[dict[str, Any]] = [{"round": 0, "serving": None, "truth": 0.5, "tokens": 20.0}]
    for number, outcome, truth, entropy in ((1, "inconclusive", 0.5, 3.0), (2, "accepted", 0.6, 2.9)):
        row = Row(number, outcome, {"entropy": entropy}, truth=truth, tokens=21.0, numbers={"kl_to_base": 0.5})
        rows.append({**asdict(row), "serving": None, "seconds": 70.0})
    found = line(rows)
    assert (found["rounds"], found["accepted"]) == (2, 1)
    assert (found["truth_before"], found["truth_after"], found["truth_lowest"]) == (0.5, 0.6, 0.5)
    assert (found["entropy_before"], found["entropy_after"]) == (3.0, 2.9)
    assert found["candidates_kl_to_base"] == [0.5, 0.5]
