"""Why a round ended as it did, and how rounds went over time. Pure; values are plain JSON as in `insight`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tao_daemon.control.insight import number
from tao_daemon.domain.report import Standing
from tao_daemon.domain.round import Outcome

_PASSED = {Standing.HELD.value: True, Standing.REFUTED.value: False}


def trend(reports: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The gate's figures of every round that ended, in the order given; null where nothing was measured.

    The incumbent of a round is not that of the round before it: gains do not add up.
    """
    return [_point(report) for report in reports if report.get("outcome")]


def _point(report: Mapping[str, Any]) -> dict[str, Any]:
    numbers = (report.get("verdict") or {}).get("numbers") or {}
    return {
        "round": report.get("round"),
        "outcome": report["outcome"],
        "difference": number(numbers.get("difference")),
        "low": number(numbers.get("difference_low")),
        "high": number(numbers.get("difference_high")),
        "incumbent_score": number(numbers.get("incumbent_score")),
        "candidate_score": number(numbers.get("candidate_score")),
        "ended_at": number(report.get("ended_at")),
        "candidate": report.get("candidate"),
    }


def explain(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why a round ended as it did, a criterion at a time. `passed` is null where too little was known.

    Reports that hold reasons in words only give those; a round without a verdict gives the reason of its end.
    """
    verdict = report.get("verdict") or {}
    if criteria := verdict.get("criteria"):
        return [
            {
                "criterion": each.get("name"),
                "passed": _PASSED.get(each.get("outcome")),
                "text": each.get("text", ""),
                "numbers": {name: number(value) for name, value in each.get("numbers", {}).items()},
            }
            for each in criteria
        ]
    if reasons := verdict.get("reasons"):
        return [{"criterion": "gate", "passed": None, "text": str(reason), "numbers": {}} for reason in reasons]
    if reason := report.get("outcome_reason"):
        passed = False if report.get("outcome") == Outcome.FAILED.value else None
        return [{"criterion": "round", "passed": passed, "text": str(reason), "numbers": {}}]
    return []
