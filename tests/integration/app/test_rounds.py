"""Rounds one after the other: what an earlier one leaves to a later one."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tao_daemon.buffer.database import open_database

SHORT_GATE = {"prompts": 24, "min_prompts": 24}
"""The held-out prompts suffice for four rounds."""


def claimed(site: Any, number: int) -> dict[str, Any]:
    return dict(site.archive.report(number)["phases"]["claiming"])


def test_what_an_accepted_round_used_up_is_rehearsed_in_the_next(past: Any) -> None:
    past.run_round(0.95)
    past.run_round(0.95)
    assert past.archive.report(1)["outcome"] == "accepted"
    assert (claimed(past, 1)["prompts"], claimed(past, 1)["rehearsed"]) == (8, 0)
    assert (claimed(past, 2)["prompts"], claimed(past, 2)["rehearsed"]) == (8, 1)
    first, second = ({group.prompt_id for group in past.archive.completions(n)} for n in (1, 2))
    assert len(second) == 9
    assert len(first & second) == 1
    held_out = {row["prompt_id"] for n in (1, 2) for row in past.archive.evaluation(n)}
    assert not held_out & (first | second)
    scored = {each.group.prompt_id for each in past.archive.scored_groups(2)}
    assert set(past.shelf.get("r2").lineage.prompt_ids) == scored


def test_what_a_rejected_round_gave_back_is_not_rehearsed(past: Any) -> None:
    past.run_round(0.25)
    past.run_round(0.95)
    assert past.archive.report(1)["outcome"] != "accepted"
    assert claimed(past, 2)["rehearsed"] == 0


def carried(site: Any, number: int) -> tuple[int, list[int]]:
    training = site.archive.report(number)["phases"]["training"]
    return training["carried_groups"], training["carried_from"]


def sampled(site: Any, number: int) -> set[str]:
    """Prompts whose groups were scored and kept."""
    return {each.group.prompt_id for each in site.archive.scored_groups(number)}


def test_what_a_refused_round_scored_trains_again_while_its_incumbent_serves(past: Any) -> None:
    past.config = past.configured(gate=SHORT_GATE)
    for skill in (0.25, 0.0, 0.95, 0.95):
        past.run_round(skill)
    outcomes = [past.archive.report(number)["outcome"] for number in (1, 2, 3, 4)]
    assert outcomes == ["inconclusive", "rejected", "accepted", "accepted"]
    assert not sampled(past, 1) & sampled(past, 2), "what was not tried yet comes first"
    assert carried(past, 1) == (0, [])
    assert carried(past, 2) == (len(sampled(past, 1)), [1])
    assert carried(past, 3) == (len(sampled(past, 2)), [2]), "the latest round alone, and its own groups"
    assert carried(past, 4) == (0, []), "what was accepted is used up, and nothing from before it comes back"
    lineage = past.shelf.get("r3").lineage
    assert set(lineage.prompt_ids) == sampled(past, 2) | sampled(past, 3)
    assert lineage.carried_from == (2,)
    [span] = lineage.offsets
    assert span.last - span.first >= len(lineage.prompt_ids)
    assert past.archive.report(3)["phases"]["training"]["groups"] == len(lineage.prompt_ids)
    with closing(open_database(past.config.daemon.data_dir / "tao.duckdb")) as connection:
        used = connection.execute("SELECT id FROM prompts WHERE state = 'used'").fetchall()
    assert {name for (name,) in used} >= set(lineage.prompt_ids), "what was carried is used up, too"


def test_how_many_rounds_are_carried_is_configured(past: Any) -> None:
    past.config = past.configured(round={"carried_rounds": 2}, gate=SHORT_GATE)
    for _ in range(3):
        past.run_round(0.0)
    assert carried(past, 3) == (len(sampled(past, 1)) + len(sampled(past, 2)), [2, 1])
    past.config = past.configured(round={"carried_rounds": 0}, gate=SHORT_GATE)
    past.run_round(0.0)
    assert carried(past, 4) == (0, [])


def test_a_prompt_that_is_asked_again_trains_once(past: Any) -> None:
    past.config = past.configured(round={"prompts": 500, "tenant_share": 1.0})
    past.run_round(0.0)
    past.run_round(0.0)
    assert sampled(past, 1) == sampled(past, 2)
    assert carried(past, 2) == (0, [])


def test_other_rewards_and_damaged_rounds_are_not_carried(past: Any) -> None:
    past.config = past.configured(gate=SHORT_GATE)
    past.run_round(0.0)
    past.config = past.configured(round={"prompts": 9}, gate=SHORT_GATE)
    past.run_round(0.0)
    assert carried(past, 2) == (0, []), "another configuration may score otherwise"
    (past.archive.directory(2) / "scores.parquet").write_bytes(b"damaged")
    past.run_round(0.0)
    assert carried(past, 3) == (0, [])
    (past.archive.directory(3) / "report.json").write_text("damaged")
    past.run_round(0.0)
    assert carried(past, 4) == (0, [])


def test_the_best_of_earlier_rounds_can_be_shown_to_the_same_tenant(past: Any) -> None:
    few_shot = {"name": "shown", "type": "few_shot", "completions": 1}
    past.config = past.configured(sampling={"strategies": [few_shot]}, round={"rehearsal_fraction": 0.25})
    assert not any(past.run_round(0.95).shown.values()), "nothing was sampled before"
    shown = past.run_round(0.95).shown
    first = {scored.group.prompt_id: scored for scored in past.archive.scored_groups(1)}
    assert len(shown) == 10
    for prompt_id, examples in shown.items():
        assert examples
        assert prompt_id not in {example.prompt_id for example in examples}, "never the prompt's own"
        assert [e.reward for e in examples] == sorted((e.reward for e in examples), reverse=True)
        for example in examples:
            best = max(first[example.prompt_id].rewards)
            assert example.reward == pytest.approx(best)
            assert example.reward >= 0.5


def test_the_divergence_reaches_the_verdict_and_is_replayed(past: Any) -> None:
    past.run_round(0.95)
    verdict = past.archive.report(1)["verdict"]
    assert verdict["numbers"]["kl_to_base"] == 0.5
    assert verdict["numbers"]["kl_to_start"] == 0.25
    [criterion] = [each for each in verdict["criteria"] if each["name"] == "kl_to_base_per_token"]
    assert criterion["outcome"] == "held"
