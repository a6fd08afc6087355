"""Rounds one after the other: what an earlier one leaves to a later one."""

from __future__ import annotations

from typing import Any

import pytest


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
