"""The demo's display: plain lines without a terminal, a panel in one."""

from __future__ import annotations

import pytest
from rich.console import Console

from tao_daemon.cli.demo_display import PlainDisplay, display, render
from tao_daemon.embedded.demo_view import View
from tao_daemon.embedded.producer import LiveAnswer

STATUS = {
    "incumbent": {"adapter": None},
    "round": {
        "id": 2,
        "phase": "training",
        "reason": "90 fresh",
        "progress": 0.5,
        "done": 4,
        "total": 8,
        "seconds_left": 61.0,
    },
    "last_round": {"id": 1, "outcome": "inconclusive", "reason": "no sure gain"},
    "rollout": None,
    "next_round": {"trigger": "a round is running"},
    "buffer": {"train": 200, "held_out": 90, "excluded": 1, "clusters": 250},
}
VIEW = View(
    elapsed=125.0,
    seconds={"model": 40.0, "broker": 0.1, "vllm_start": 45.0, "daemon_start": 3.0},
    sent=320,
    live_requests=20,
    last_answer=LiveAnswer("Where is it?", '[bold]{"category"', "base", 1.5),
    status=STATUS,
    reports={2: {"phases": {"sampling": {"seconds": 61.0}}}},
)


def drawn(view: View) -> str:
    console = Console(width=110, force_terminal=False)
    with console.capture() as captured:
        console.print(render(view))
    return captured.get()


def test_the_panel_shows_where_things_are() -> None:
    text = drawn(VIEW)
    for piece in ("2:05", "320 tickets", "250 clusters", "round 2", "4/8, about 61 s left", "61 s", "the base model"):
        assert piece in text


def test_answers_are_shown_as_they_are() -> None:
    assert '[bold]{"category"' in drawn(VIEW)


def test_the_panel_can_be_drawn_before_anything_is_known() -> None:
    assert "SmolLM2" in drawn(View(doing="model", note="writing the checkpoint"))


def test_between_rounds_it_says_what_the_next_one_waits_for() -> None:
    idle = {**STATUS, "round": None, "next_round": {"trigger": "10 of 90 fresh training prompts"}}
    assert "10 of 90 fresh" in drawn(View(status=idle))


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with display() as shown:
        assert isinstance(shown, PlainDisplay)
        shown.show(VIEW)
        shown.show(VIEW)
    lines = capsys.readouterr().out.splitlines()
    assert any("round 2 training 4/8" in line for line in lines)
    assert len(lines) == len(set(lines))
