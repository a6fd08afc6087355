"""Server-sent events as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.cli.events import Lines
from tao_daemon.cli.stream import Happening, parse_events


def test_events_comments_and_several_data_lines() -> None:
    lines = [
        ": keep-alive",
        "",
        "event: transition",
        "id: 41",
        'data: {"seq": 41,',
        'data: "note": "a: b"}',
        "",
        "event: progress",
        'data:{"done": 1}',
        "",
        "event: transition",
        'data: {"cut',
    ]
    assert list(parse_events(lines)) == [
        Happening("transition", 41, {"seq": 41, "note": "a: b"}),
        Happening("progress", None, {"done": 1}),
    ]


def test_an_id_belongs_to_its_event_alone() -> None:
    lines = ["id: 3", "data: {}", "", "data: {}", "", "id: x", "data: {}", ""]
    assert [happening.id for happening in parse_events(lines)] == [3, None, None]


@given(st.lists(st.text(st.characters(exclude_characters="\n\r"))))
def test_whatever_comes_is_parsed_or_passed_over(lines: list[str]) -> None:
    assert all(isinstance(happening.data, dict) for happening in parse_events(lines))


def test_progress_is_told_in_tenths() -> None:
    lines = Lines()
    told = [
        lines.of(
            Happening(
                "progress",
                None,
                {"round": 3, "phase": "sampling", "done": at, "total": 100, "fraction": at / 100, "seconds_left": 90.0},
            )
        )
        for at in range(0, 31, 3)
    ]
    assert [line is not None for line in told] == [at // 10 != (at - 3) // 10 for at in range(0, 31, 3)]
    assert "round 3 sampling 12% 12/100, 1 m 30 s left" in str(told[4])


def test_a_transition_without_words_is_named() -> None:
    data = {"seq": 9, "at": 1_700_000_000.0, "type": "PhaseCompleted", "actor": "daemon", "note": ""}
    line = Lines().of(Happening("transition", 9, data))
    assert line is not None
    assert "22:13:20      9  daemon      PhaseCompleted" in line


def test_that_the_daemon_is_away_is_news_once() -> None:
    lines = Lines()
    assert [lines.lost(), lines.lost()] == [True, False]
    lines.of(Happening("other", None, {}))
    assert lines.lost()
