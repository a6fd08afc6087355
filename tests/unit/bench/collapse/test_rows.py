"""Who noticed first: meters against the first round's, guards of the gate, failures of scoring."""

from __future__ import annotations

from bench.collapse.rows import Notice, Row, against, notices
from tao_daemon.domain.report import Criterion, Decision, Standing, Verdict

METERS = {"entropy": 2.0, "distinct_texts": 1.0, "tokens_mean": 10.0, "refusals": 0.1}


def row(number: int, **changed: object) -> Row:
    found = Row(number, "inconclusive", METERS)
    for name, value in changed.items():
        setattr(found, name, value)
    return found


def test_a_quiet_course_has_no_notices() -> None:
    assert notices([row(1), row(2), row(3)]) == []


def test_each_speaks_once_in_the_round_where_it_first_did() -> None:
    rows = [
        row(1),
        row(2, meters={**METERS, "entropy": 1.61}, numbers={"kl_to_base": 1.9}),
        row(3, meters={**METERS, "entropy": 1.59, "refusals": 0.3}, against=("gain", "length_ratio")),
        row(4, meters={**METERS, "entropy": 0.1, "tokens_mean": 6.0}, numbers={"kl_to_base": 2.1}),
        row(5, outcome="failed", failures={"untrusted": 8}, trained={"stopped_on_kl": 1.0}),
    ]
    assert notices(rows) == [
        Notice(3, "gate.gain"),
        Notice(3, "gate.length_ratio"),
        Notice(3, "meter.entropy"),
        Notice(3, "meter.refusals"),
        Notice(4, "meter.kl_to_base"),
        Notice(4, "meter.tokens_mean"),
        Notice(5, "scoring.untrusted"),
        Notice(5, "round.failed"),
        Notice(5, "training.kl_budget"),
    ]


def test_a_meter_that_one_round_lacks_says_nothing() -> None:
    assert notices([row(1), row(2, meters={"entropy": 2.0})]) == []


def verdict(**standings: Standing) -> Verdict:
    criteria = tuple(Criterion(name, standing, "") for name, standing in standings.items())
    return Verdict(Decision.INCONCLUSIVE, (), criteria=criteria)


def test_against_a_candidate_is_what_is_refuted_and_what_is_open_beside_a_gain() -> None:
    refuted = verdict(gain=Standing.OPEN, length_ratio=Standing.REFUTED, refusal_increase=Standing.OPEN)
    assert against(refuted) == ("length_ratio",)
    assert against(verdict(gain=Standing.HELD, refusal_increase=Standing.OPEN)) == ("refusal_increase",)
    assert against(verdict(gain=Standing.OPEN, differing_pairs=Standing.OPEN)) == ()
