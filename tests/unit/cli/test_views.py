"""How things look, in a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import pytest

from tao_daemon.cli import answer_view, rollout_view, round_view, status_view

Make = Callable[..., dict[str, Any]]
Draw = Callable[..., str]
NOW = 2000.0
RUNNING = {
    "id": 8,
    "phase": "sampling",
    "attempt": 2,
    "reason": "500 fresh prompts",
    "started_at": 1940.0,
    "incumbent": None,
    "candidate": None,
    "progress": 0.5,
    "done": 13,
    "total": 26,
    "seconds_left": 75.0,
}
REPORT = {
    "round": 7,
    "outcome": "accepted",
    "outcome_reason": "gain +0.20",
    "reason": "the calendar",
    "started_at": 1_700_000_000.0,
    "incumbent": None,
    "candidate": "000007-bbb",
    "phases": {"training": {"seconds": 90.0, "kl": 0.1, "steps": 8.0}, "sampling": {"seconds": 30.0, "tokens": 500}},
    "verdict": {
        "decision": "pass",
        "reasons": ["x"],
        "numbers": {
            "difference": 0.2,
            "difference_low": 0.1,
            "difference_high": 0.3,
            "candidate_score": 0.7,
            "candidate_score_low": 0.6,
            "candidate_score_high": 0.8,
            "confidence": 0.95,
        },
    },
    "explanation": [
        {"criterion": "gain", "passed": True, "text": "gain +0.20", "numbers": {}},
        {"criterion": "length", "passed": False, "text": "too long", "numbers": {}},
    ],
}


def test_the_status_of_a_running_round(status: Make, as_plain: Draw) -> None:
    text = as_plain(
        status_view.render(status(round=RUNNING, last_round={"id": 7, "outcome": "rejected", "reason": "worse"}), NOW)
    )
    assert "8 sampling (attempt 2)  ############------------  50% 13/26, 1 m 15 s left" in text
    assert "started 1 m 00 s ago: 500 fresh prompts" in text
    assert "7 rejected: worse" in text
    assert "000001-aaa since 1970-01-01 00:16:40 (16 m 40 s ago), generation 4" in text
    assert "undo goes to  base model" in text
    assert "needs you     nothing" in text


@pytest.mark.parametrize(
    ("phase", "incumbent", "previous", "words"),
    [
        ("staged", "b", "a", "a"),
        ("shadow", "b", "a", "a"),
        ("canary", "b", "a", "b alone: it ends the canary of c; another goes to a"),
        ("canary", "b", None, "b alone: it ends the canary of c; another goes to base model"),
        ("canary", None, None, "base model alone: it ends the canary of c"),
        ("baking", "c", "b", "b"),
        ("settled", "c", "b", "b"),
    ],
)
def test_the_status_says_what_the_next_undo_does(
    status: Make, rollout: Make, as_plain: Draw, phase: str, incumbent: str | None, previous: str | None, words: str
) -> None:
    serving = {"adapter": incumbent, "previous": previous, "generation": 4, "since": 1000.0}
    text = as_plain(status_view.render(status(rollout=rollout(adapter="c", phase=phase), incumbent=serving), NOW))
    assert f"undo goes to  {words}\n" in text


def test_the_status_names_servers_that_are_down_and_gateways_that_are_behind(status: Make, as_plain: Draw) -> None:
    replicas = [
        {"url": "http://a", "reachable": True, "ready": True, "problems": []},
        {"url": "http://b", "reachable": False, "ready": False, "problems": ["connection refused"]},
        {"url": "http://c", "reachable": True, "ready": False, "problems": ["rank 8 > 4", "it restarted"]},
        {"url": "http://d", "reachable": False, "ready": False, "problems": []},
    ]
    found = status(fleet={"gateways": 3, "behind": ["g1", "g2"], "unready": ["http://c"], "replicas": replicas})
    text = as_plain(status_view.render(found, NOW))
    assert "gateways      3, with older routes: g1, g2\n" in text
    assert "servers       http://a ready\n" in text
    assert "http://b not reachable: connection refused\n" in text
    assert "http://c not ready: rank 8 > 4; it restarted\n" in text
    assert "http://d not looked at yet\n" in text
    line = status_view.line(found)
    assert "not reachable: http://b | not ready: http://c" in line
    assert "http://d" not in line


def test_what_needs_a_person_is_said_as_the_daemon_says_it(status: Make, as_plain: Draw) -> None:
    needs = [
        {"code": "paused", "text": "the rollout is paused", "command": "tao-daemon x", "severity": "decision"},
        {"code": "buffer_silent", "text": "the buffer does not answer", "command": None, "severity": "problem"},
    ]
    text = as_plain(status_view.render(status(needs=needs), NOW))
    assert "needs you     the rollout is paused\n              -> tao-daemon x\n" in text
    assert "              the buffer does not answer\n" in text
    assert "nothing" not in text


def test_plain_text_has_no_escape_no_box_and_is_never_cut(status: Make, rollout: Make, as_plain: Draw) -> None:
    long = "because " * 60
    found = status(rollout=rollout(hold=long.strip(), waits_for_approval=True), round=RUNNING)
    for view in (status_view.render(found, NOW), rollout_view.render(found, NOW)):
        text = as_plain(view)
        assert text.isascii()
        assert "\x1b" not in text
        assert long.strip() in text
        assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_terminal_without_colour_still_says_how_it_stands(status: Make, rollout: Make, as_terminal: Draw) -> None:
    found = status(rollout=rollout(phase="canary", step=1, traffic_fraction=0.25, hold="12 of 100 conversations"))
    view = rollout_view.render(found, NOW)
    bare = as_terminal(view, colours=False)
    for piece in ("✔ shadow", "✔ canary 5%", "● canary 25%", "○ baking", "canary, 25% of the conversations"):
        assert piece in bare
    assert "\x1b[3" not in bare
    assert "\x1b[3" in as_terminal(view)


def test_nothing_is_wider_than_the_terminal(status: Make, rollout: Make, as_terminal: Draw) -> None:
    found = status(rollout=rollout(hold="because " * 40, waits_for_approval=True), round=RUNNING)
    for width in (60, 100):
        for view in (status_view.render(found, NOW), rollout_view.render(found, NOW)):
            assert all(
                len(line) <= width
                for line in as_terminal(view, width, colours=False)
                .replace("\x1b[1m", "")
                .replace("\x1b[2m", "")
                .replace("\x1b[0m", "")
                .splitlines()
            )


@pytest.mark.parametrize(
    ("fields", "marks"),
    [
        ({"phase": "staged"}, "now ahead ahead ahead ahead ahead"),
        ({"phase": "shadow"}, "done now ahead ahead ahead ahead"),
        ({"phase": "shadow", "waits_for_approval": True}, "done held ahead ahead ahead ahead"),
        ({"phase": "canary", "step": 1}, "done done done now ahead ahead"),
        ({"phase": "canary", "paused_by": "ann"}, "done done held ahead ahead ahead"),
        ({"phase": "baking"}, "done done done done now ahead"),
        ({"phase": "settled"}, "done done done done done done"),
        ({"phase": "rolled_back"}, "done done done done done failed"),
        ({"phase": "aborted", "evidence": {"shadow_pairs": 0.0}}, "failed ahead ahead ahead ahead ahead"),
        ({"phase": "aborted"}, "done failed ahead ahead ahead ahead"),
        (
            {"phase": "aborted", "step": 1, "steps": [{"candidate": {"conversations": 9, "errors": 7, "slow": 0}}]},
            "done done done failed ahead ahead",
        ),
    ],
)
def test_the_steps_of_a_rollout(rollout: Make, fields: dict[str, Any], marks: str) -> None:
    assert [step.mark for step in rollout_view.steps(rollout(**fields))] == marks.split()


def test_a_rollout_without_canary_has_no_canary_steps(rollout: Make) -> None:
    plan = {**rollout()["plan"], "fractions": []}
    found = rollout_view.steps(rollout(phase="baking", plan=plan))
    assert [(step.name, step.mark) for step in found][1:3] == [("shadow", "done"), ("baking", "now")]


def test_the_evidence_per_arm(status: Make, rollout: Make, as_plain: Draw) -> None:
    counted = {
        "candidate_conversations": 120.0,
        "candidate_errors": 7.0,
        "incumbent_conversations": 2300.0,
        "evidence_errors": 163.2,
    }
    text = as_plain(rollout_view.render(status(rollout=rollout(counted, phase="canary")), NOW))
    rows = [line.split() for line in text.splitlines()]
    assert ["conversations", "2300", "120"] in rows
    assert ["errors", "0", "7", "163", "160"] in rows
    assert "64 pairs (64 needed), mean difference +0.125, 2 skipped" in text


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"waits_for_approval": True}, "rollout approve"),
        ({"paused_by": "ann"}, "rollout resume"),
        ({"phase": "canary"}, "rollout promote"),
        ({"phase": "settled"}, "rollout undo"),
        ({"phase": "aborted"}, "round show 7"),
    ],
)
def test_the_command_that_moves_it_comes_first(rollout: Make, fields: dict[str, Any], command: str) -> None:
    assert rollout_view.moves(rollout(**fields), "approve")[0].startswith(command)


def test_what_is_not_measured_is_a_dash(status: Make, rollout: Make, as_plain: Draw) -> None:
    text = as_plain(
        rollout_view.render(status(rollout=rollout({"evidence_worse": nan, "shadow_mean_difference": nan})), NOW)
    )
    assert "mean difference -," in text
    assert "e-value -, aborts at 40" in text


def test_before_the_first_rollout(status: Make, as_plain: Draw) -> None:
    assert "none yet" in as_plain(rollout_view.render(status(), NOW))
    assert rollout_view.line(status()) == "no rollout yet"
    assert "no rollout yet" in as_plain(rollout_view.history([]))


def test_why_sampling_is_held_is_said(status: Make, as_plain: Draw) -> None:
    assert "held to learn" in as_plain(status_view.render(status(round={**RUNNING, "held": "held to learn"}), NOW))


def test_lines_change_only_when_something_does(status: Make, rollout: Make) -> None:
    before = status_view.line(status(round=RUNNING))
    assert status_view.line(status(round={**RUNNING, "progress": 0.55, "seconds_left": 3.0})) == before
    assert status_view.line(status(round={**RUNNING, "progress": 0.6})) != before
    assert "rollout 000007-bbb canary 5%: why" in status_view.line(
        status(rollout=rollout(phase="canary", traffic_fraction=0.05, hold="why"))
    )


def test_lag_is_said_where_it_is_known(status: Make, as_plain: Draw) -> None:
    assert "consuming, 120 records behind" in as_plain(status_view.render(status(intake_lag_records=120), NOW))
    assert "consuming, up to date" in as_plain(status_view.render(status(intake_lag_records=0), NOW))


def test_a_round_in_full(as_plain: Draw) -> None:
    rewards = {
        "strategies": [{"name": "plain", "completions": 8, "scored": 6, "mean": 0.5, "counts": [3, *[0] * 18, 3]}],
        "groups": 4,
        "kept": 3,
        "dropped": 1,
    }
    text = as_plain(round_view.report(REPORT, rewards))
    assert "7 accepted" in text
    assert "+0.200 [+0.100, +0.300] (95%)" in text
    assert "candidate  0.700 [0.600, 0.800]" in text
    assert "[x] gain +0.20" in text
    assert "[!] too long" in text
    assert text.index("sampling ") < text.index("training ")
    assert "1 m 30 s" in text
    assert "0 @                  @ 1" in text


def test_a_round_that_failed_early_can_be_shown(as_plain: Draw) -> None:
    bare = {"round": 3, "phases": {}, "outcome": "failed", "outcome_reason": "claiming: none", "candidate": None}
    assert "claiming: none" in as_plain(round_view.report(bare, None))
    assert "failed" in as_plain(round_view.listing([bare, {"round": 4, "phases": {}}]))
    assert "no round yet" in as_plain(round_view.listing([]))


def test_two_rounds_and_a_replay(as_plain: Draw) -> None:
    rows = [
        {"name": "gate.difference", "left": 0.1, "right": None, "change": None},
        {"name": "steps", "left": 8.0, "right": 9.0, "change": 1.0},
    ]
    text = as_plain(round_view.comparison({"left": 6, "right": 7, "rows": rows}))
    assert ["gate.difference", "0.1", "-", "-"] in [line.split() for line in text.splitlines()]
    assert ["steps", "8", "9", "+1"] in [line.split() for line in text.splitlines()]
    checks = [
        {"name": "a", "recorded": 1.0, "replayed": 2.0, "same": False},
        {"name": "b", "recorded": "x", "replayed": "not checked: why", "same": None},
    ]
    text = as_plain(round_view.replay({"round": 7, "matches": False, "checks": checks, "note": "mind"}))
    assert "[!]" in text
    assert "does NOT come out the same" in text
    assert "mind" in text


def test_answers_side_by_side_cannot_steer_the_terminal(as_plain: Draw, as_terminal: Draw) -> None:
    row = {
        "prompt_id": "p1",
        "prompt": None,
        "difference": 1.0,
        **{f"{side}_text": f"{side} says \x1b]0;owned\x07" for side in ("incumbent", "candidate")},
        **{f"{side}_score": 0.5 for side in ("incumbent", "candidate")},
        **{f"{side}_tokens": 3 for side in ("incumbent", "candidate")},
        "incumbent_truncated": True,
        "candidate_truncated": False,
    }
    found = {"total": 1, "rows": [row], "wins": 1, "ties": 0, "losses": 0, "win_rate": 1.0, "win_rate_ci95": [0.2, 1.0]}
    view = answer_view.side_by_side(found)
    text, drawn = as_plain(view), as_terminal(view)
    assert "\x1b]" not in text + drawn
    assert "\x07" not in text + drawn
    assert "(erased)" in text
    assert "incumbent 0.50 (3 tokens, cut off)" in text
    assert "win rate 1.00 [0.20, 1.00]" in text
    side_by_side = next(line for line in drawn.splitlines() if "incumbent says" in line)
    assert "candidate says" in side_by_side
