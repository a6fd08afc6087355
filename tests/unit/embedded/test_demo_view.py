"""What changed between two views becomes lines, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tao_daemon.embedded.demo_view import View, changes, rollout_line, why_not


def status(**changes: Any) -> dict[str, Any]:
    return {
        "incumbent": {"adapter": None},
        "round": None,
        "last_round": None,
        "rollout": None,
        "next_round": {"trigger": "10 of 90 fresh training prompts"},
        "buffer": {"train": 200, "held_out": 90, "excluded": 1, "clusters": 250},
        **changes,
    }


def running(phase: str, progress: float, **changes: Any) -> dict[str, Any]:
    base = {"id": 1, "phase": phase, "reason": "90 fresh", "progress": progress, "done": None, "total": None}
    return {**base, "seconds_left": None, **changes}


LAST = {"id": 1, "outcome": "rejected", "reason": "worse: gain -0.1"}


def lines(before: View, after: View) -> list[str]:
    return list(changes(before, after))


def test_nothing_new_gives_no_line() -> None:
    view = View(sent=3, status=status(round=running("training", 0.4, seconds_left=50.0)))
    assert lines(view, replace(view, elapsed=9.0, sent=4, status=status(round=running("training", 0.45)))) == []


def test_parts_of_the_set_up_start_and_end() -> None:
    doing = View(doing="broker")
    assert lines(View(), doing) == ["Kafka broker …"]
    assert lines(doing, View(seconds={"broker": 0.2})) == ["Kafka broker: ready after 0 s"]


def test_traffic_is_counted_now_and_then() -> None:
    (line,) = lines(View(sent=150, status=status()), View(sent=170, status=status()))
    assert "170 tickets" in line
    assert "90 held out" in line
    assert "250 clusters" in line


def test_a_phase_has_a_line_per_quarter_with_counts_and_time_left() -> None:
    before = View(status=status(round=running("sampling", 0.2)))
    after = View(status=status(round=running("sampling", 0.5, done=10, total=20, seconds_left=31.4)))
    assert lines(before, after) == ["round 1 sampling 10/20, about 31 s left"]


def test_a_round_starts_with_its_reason() -> None:
    before, after = View(status=status()), View(status=status(round=running("claiming", 0.0)))
    assert lines(before, after)[0] == "round 1 starts: 90 fresh"


def test_rewards_are_told_once() -> None:
    scoring = {"mean_reward": 0.31, "mean_reward_plain": 0.12, "kept": 19, "dropped": 1}
    before = View(status=status(round=running("scoring", 0.0)), reports={1: {"phases": {}}})
    after = replace(before, reports={1: {"phases": {"scoring": scoring}}})
    (line,) = lines(before, after)
    assert "0.31" in line
    assert "0.12" in line
    assert "19 tickets can teach, 1 cannot" in line
    assert lines(after, after) == []


def test_a_rejected_round_says_that_nothing_changed() -> None:
    told = lines(View(status=status()), View(status=status(last_round=LAST)))
    assert told[0] == "round 1, verdict: rejected: worse: gain -0.1"
    assert "stays as it is" in told[1]


def test_a_promotion_is_one_that_serves() -> None:
    rollout = {"phase": "settled", "adapter": "tao-r1-x", "round": 1, "reason": "baked", "since": 1.0, "step": 1}
    serving = View(status=status(rollout=rollout, incumbent={"adapter": "tao-r1-x"}))
    assert serving.promoted == rollout
    assert lines(View(status=status()), serving) == ["rollout of tao-r1-x: settled; baked"]
    assert View(status=status(rollout=rollout)).promoted is None
    assert View(status=status(rollout={**rollout, "phase": "baking"})).promoted is None


def test_a_canary_tells_its_share_and_what_it_waits_for() -> None:
    rollout = {
        "phase": "canary",
        "adapter": "x",
        "step": 0,
        "traffic_fraction": 0.25,
        "reason": "passed",
        "hold": "3 of 6",
    }
    view = View(status=status(rollout=rollout))
    assert lines(View(status=status()), view) == ["rollout of x: canary 25% of the conversations; passed"]
    assert rollout_line(rollout) == "canary 25%: 3 of 6"
    assert "still in canary 25%: 3 of 6" in why_not(view)


def test_errors_of_live_questions_are_told() -> None:
    (line,) = lines(View(), View(live_requests=5, live_errors=1, live_error="ValueError: HTTP 502"))
    assert "1 of 5" in line
    assert "HTTP 502" in line


def test_why_no_adapter_was_promoted() -> None:
    assert "Kafka broker" in why_not(View(doing="broker"))
    assert why_not(View(status=status())) == "no round had started"
    assert why_not(View(status=status(last_round=LAST))) == "round 1 was rejected: worse: gain -0.1"
    both = View(status=status(round=running("training", 0.5, id=2), last_round=LAST))
    assert why_not(both) == "round 2 was still training (50%); round 1 was rejected: worse: gain -0.1"
