"""What a round shows: distributions, answers side by side, comparisons. Always JSON, whatever is missing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.control.insight import answers, compare, reward_distribution, wilson
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.report import AnswerPage

NAN = float("nan")


def a_group(name: str, *strategies: str) -> CompletionGroup:
    return CompletionGroup(name, (), tuple(Completion(n, s, "", (), (), "stop") for n, s in enumerate(strategies)))


def scored(group: CompletionGroup, *rewards: float) -> ScoredGroup:
    return ScoredGroup(group, rewards, ("ticket",))


def a_row(name: str, before: float | None, after: float | None) -> dict[str, Any]:
    return {
        "prompt_id": name,
        "incumbent_text": "old",
        "candidate_text": "new",
        "incumbent_score": before,
        "candidate_score": after,
        "incumbent_tokens": 3,
        "candidate_tokens": 4,
        "incumbent_truncated": False,
        "candidate_truncated": True,
    }


def strict_json(value: Any) -> Any:
    """As the API sends it: NaN would not pass."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_rewards_are_counted_per_strategy_with_the_plain_one_first() -> None:
    first, second = a_group("a", "hint", "plain", "plain"), a_group("b", "plain", "hint")
    found = strict_json(reward_distribution([first, second], [scored(first, 1.0, 0.0, 0.5)], bins=4))
    assert found["edges"] == [0, 0.25, 0.5, 0.75, 1]
    assert (found["groups"], found["kept"], found["dropped"]) == (2, 1, 1)
    plain, hint = found["strategies"]
    assert plain == {"name": "plain", "completions": 3, "scored": 2, "mean": 0.25, "counts": [1, 0, 1, 0]}
    assert hint == {"name": "hint", "completions": 2, "scored": 1, "mean": 1.0, "counts": [0, 0, 0, 1]}


def test_a_round_without_scores_has_a_distribution_without_rewards() -> None:
    assert strict_json(reward_distribution([], [])) == {
        "bins": 20,
        "edges": [n / 20 for n in range(21)],
        "strategies": [],
        "groups": 0,
        "kept": 0,
        "dropped": 0,
    }
    sampled = reward_distribution([a_group("a", "plain")], [])
    assert sampled["strategies"] == [{"name": "plain", "completions": 1, "scored": 0, "mean": None, "counts": [0] * 20}]


def test_a_reward_that_is_no_number_is_in_no_bin() -> None:
    group = a_group("a", "plain", "plain")
    (plain,) = strict_json(reward_distribution([group], [scored(group, NAN, 0.5)]))["strategies"]
    assert (plain["scored"], plain["mean"], sum(plain["counts"])) == (1, 0.5, 1)


def test_without_bins_there_is_no_distribution() -> None:
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        reward_distribution([], [], bins=0)


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 40))
def test_every_reward_is_in_the_bin_between_whose_edges_it_lies(rewards: list[float], bins: int) -> None:
    group = a_group("a", *["plain"] * len(rewards))
    found = reward_distribution([group], [scored(group, *rewards)], bins=bins)
    counts = found["strategies"][0]["counts"] if rewards else []
    assert sum(counts) == len(rewards)
    slack = 1e-12
    for place, count in enumerate(counts):
        low, high = found["edges"][place], found["edges"][place + 1]
        assert count <= sum(low - slack <= reward <= high + slack for reward in rewards)


def test_answers_stand_side_by_side_and_an_erased_prompt_is_null() -> None:
    page = AnswerPage([a_row("a", 0.25, 1.0), a_row("b", 0.5, 0.5)], total=4, wins=2, ties=1, losses=1)
    found = strict_json(answers(page, {"a": "the question"}))
    assert found["total"] == 4
    assert found["rows"][0] == {"prompt": "the question", "difference": 0.75, **a_row("a", 0.25, 1.0)}
    assert found["rows"][1]["prompt"] is None
    assert (found["wins"], found["ties"], found["losses"], found["win_rate"]) == (2, 1, 1, 0.625)
    low, high = found["win_rate_ci95"]
    assert low < 0.625 < high


@pytest.mark.parametrize(("before", "after"), [(None, 0.5), (0.5, NAN), (math.inf, 0.5), (None, None)])
def test_a_score_that_is_missing_or_no_number_is_null(before: float | None, after: float | None) -> None:
    (row,) = strict_json(answers(AnswerPage([a_row("a", before, after)], total=1), {}))["rows"]
    assert row["difference"] is None
    assert None in (row["incumbent_score"], row["candidate_score"])


def test_without_a_scored_pair_there_is_no_win_rate() -> None:
    found = strict_json(answers(AnswerPage(total=3), {}))
    assert (found["rows"], found["total"], found["win_rate"], found["win_rate_ci95"]) == ([], 3, None, None)


@pytest.mark.parametrize(
    ("wins", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(wins: int, count: int, low: float, high: float) -> None:
    found = wilson(wins / count, count)
    assert found == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_bounds_are_where_the_score_test_just_rejects(count: int, rate: float) -> None:
    low, high = wilson(rate, count)
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            assert abs(rate - bound) == pytest.approx(
                1.959963984540054 * math.sqrt(bound * (1 - bound) / count), rel=1e-6
            )


LEFT = {
    "round": 3,
    "outcome": "accepted",
    "started_at": 10.0,
    "phases": {
        "sampling": {"groups": 10, "seconds": 4.0, "version": "1", "config_digest": "aa"},
        "training": {"loss": 0.5, "version": "1", "config_digest": "bb"},
    },
    "verdict": {"decision": "pass", "numbers": {"difference": 0.25}, "reasons": ["gain"]},
}


def rows_of(found: dict[str, Any]) -> dict[str, tuple[Any, Any, Any]]:
    return {row["name"]: (row["left"], row["right"], row["change"]) for row in strict_json(found)["rows"]}


def test_two_rounds_beside_each_other() -> None:
    phases = {"scoring": {"kept": 4}, "sampling": {"groups": 12, "fingerprint": "x", "seconds": NAN}}
    right = {"round": 5, "outcome": "failed", "outcome_reason": "scoring: no", "phases": phases}
    found = compare(LEFT, right)
    assert (found["left"], found["right"]) == (3, 5)
    rows = rows_of(found)
    assert rows["outcome"] == ("accepted", "failed", None)
    assert rows["sampling.groups"] == (10, 12, 2)
    assert rows["sampling.seconds"] == (4.0, None, None)
    assert rows["sampling.fingerprint"] == (None, "x", None)
    assert rows["gate.difference"] == (0.25, None, None)
    assert rows["config_digest"] == ("bb", None, None), "a restart may bring another one: the last counts"
    stages = [name.partition(".")[0] for name in rows if "." in name]
    assert list(dict.fromkeys(stages)) == ["sampling", "scoring", "training", "gate"]


def test_a_round_beside_itself_changes_nothing_and_one_that_says_nothing_is_fine() -> None:
    assert {change for _, _, change in rows_of(compare(LEFT, LEFT)).values()} <= {None, 0}
    assert {left for left, _, _ in rows_of(compare({}, {"round": 1, "verdict": None})).values()} == {None}


def test_two_groups_of_one_prompt_are_both_counted() -> None:
    group = a_group("a", "plain")
    found = reward_distribution([group, replace(group)], [scored(group, 1.0), scored(group, 0.0)])
    assert found["strategies"][0]["counts"] == [1, *[0] * 18, 1]
