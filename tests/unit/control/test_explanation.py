"""Why a round ended as it did, and the trend over rounds."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tao_daemon.control.explanation import explain, trend
from tao_daemon.domain.report import Pair, Verdict
from tao_daemon.evaluation.gate import Limits, judge

LIMITS = Limits(32, 0.95, 1000, 10, 1.2, 0.02)


def verdict_of(differences: list[float], candidate_tokens: int = 10) -> Verdict:
    pairs = [Pair(str(n), 0.0, d, 10, candidate_tokens, False, False) for n, d in enumerate(differences)]
    return judge(pairs, LIMITS, available=len(pairs), seed=1)


def report_of(verdict: Verdict) -> dict[str, object]:
    """As it comes back from report.json."""
    report: dict[str, object] = json.loads(json.dumps({"round": 1, "phases": {}, "verdict": asdict(verdict)}))
    return report


def test_every_criterion_of_the_gate_is_told_with_its_numbers() -> None:
    told = explain(report_of(verdict_of([1.0] * 32)))
    assert [(each["criterion"], each["passed"]) for each in told] == [
        ("gain", True),
        ("differing_pairs", True),
        ("length_ratio", True),
        ("truncation_increase", True),
    ]
    assert told[0]["numbers"]["difference"] == 1.0
    assert told[0]["text"].startswith("gain +1.00")


def test_what_refuted_the_candidate_and_what_stayed_open() -> None:
    longer = {each["criterion"]: each for each in explain(report_of(verdict_of([1.0] * 32, candidate_tokens=20)))}
    assert longer["length_ratio"]["passed"] is False
    assert longer["length_ratio"]["numbers"] == {"length_ratio": 2.0, "low": pytest.approx(2.0, rel=0.01), "most": 1.2}
    unsure = {each["criterion"]: each["passed"] for each in explain(report_of(verdict_of([0.0] * 32)))}
    assert (unsure["gain"], unsure["differing_pairs"]) == (None, None)


def test_too_few_prompts_are_one_open_criterion() -> None:
    (only,) = explain(report_of(verdict_of([1.0] * 31)))
    assert (only["criterion"], only["passed"], only["numbers"]) == ("prompts", None, {"available": 31.0})


def test_a_report_with_reasons_alone_gives_those() -> None:
    told = explain({"verdict": {"decision": "fail", "reasons": ["worse"], "numbers": {}}})
    assert told == [{"criterion": "gate", "passed": None, "text": "worse", "numbers": {}}]


def test_a_round_without_a_verdict_gives_the_reason_of_its_end() -> None:
    told = explain({"outcome": "failed", "outcome_reason": "training: the trainer was killed"})
    assert told == [{"criterion": "round", "passed": False, "text": "training: the trainer was killed", "numbers": {}}]
    (told,) = explain({"outcome": "cancelled", "outcome_reason": "not at night"})
    assert (told["passed"], told["text"]) == (None, "not at night")
    assert explain({"phases": {}}) == []


def test_the_trend_holds_every_round_that_ended_and_null_where_nothing_was_measured() -> None:
    numbers = {"difference": 0.5, "difference_low": 0.25, "difference_high": 0.75, "candidate_score": 1.0}
    judged = {"round": 1, "outcome": "accepted", "candidate": "a", "ended_at": 9.0, "verdict": {"numbers": numbers}}
    found = trend([judged, {"round": 2, "outcome": "failed"}, {"round": 3, "phases": {}}])
    nothing = dict.fromkeys(
        ("difference", "low", "high", "incumbent_score", "candidate_score", "ended_at", "candidate")
    )
    measured = {"difference": 0.5, "low": 0.25, "high": 0.75, "candidate_score": 1.0, "ended_at": 9.0, "candidate": "a"}
    assert found == [
        {**nothing, **measured, "round": 1, "outcome": "accepted"},
        {**nothing, "round": 2, "outcome": "failed"},
    ]
