"""Marks, bars and what others' text may do to a terminal: nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.cli.output import ASCII, UNICODE, bar, clean, clean_line, echo_json, echo_json_line, number, spark, tell


@given(st.floats(0, 1), st.integers(1, 60))
def test_a_bar_is_as_wide_as_asked_and_full_only_at_the_end(fraction: float, width: int) -> None:
    drawn = bar(fraction, ASCII, width)
    assert len(drawn) == width
    assert (drawn == "#" * width) == (fraction >= 1)


def test_a_fraction_out_of_bounds_draws_the_nearest_bar() -> None:
    assert bar(-1, ASCII, 4) == "----"
    assert bar(7, ASCII, 4) == "####"


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_what_was_counted_is_never_drawn_as_nothing(counts: list[int]) -> None:
    for marks in (ASCII, UNICODE):
        drawn = spark(counts, marks)
        assert len(drawn) == len(counts)
        assert [sign == marks.levels[0] for sign in drawn] == [count == 0 for count in counts]


def test_plain_marks_are_ascii() -> None:
    assert "".join([ASCII.done, ASCII.now, ASCII.ahead, ASCII.failed, ASCII.held, ASCII.arrow, ASCII.levels]).isascii()


def test_escapes_and_direction_marks_become_visible() -> None:
    assert clean("a\x1b[31mb\r\x07c\u202ed") == "a\\x1b[31mb\\x0d\\x07c\\x202ed"
    assert clean("größer\n\tx \U0001f469\u200d\U0001f4bb") == "größer\n\tx \U0001f469\u200d\U0001f4bb"


def test_a_line_stays_one_line() -> None:
    assert clean_line("why\n12:00  7  ann\u2028more\tx\x1b") == r"why\n12:00  7  ann\x2028more\tx\x1b"


@given(st.text())
def test_no_text_of_others_begins_another_line(text: str) -> None:
    assert len(f"a{clean_line(text)}".splitlines()) == 1


def test_json_takes_what_no_stream_takes(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"note": "größer \udcff", "at": 1.5}
    echo_json(found)
    echo_json_line(found)
    whole, _, line = capsys.readouterr().out.partition("}\n")
    assert json.loads(whole + "}") == json.loads(line) == found
    assert "größer" in line
    assert line.count("\n") == 1


def test_programs_get_json_and_people_a_view(capsys: pytest.CaptureFixture[str]) -> None:
    tell([1], True, print)
    assert json.loads(capsys.readouterr().out) == [1]
    tell([1], False, lambda found: print("one of", len(found)))
    assert capsys.readouterr().out == "one of 1\n"


@given(st.text())
def test_nothing_that_is_cleaned_starts_an_escape(text: str) -> None:
    assert not set(clean(text)) & {"\x1b", "\x9b", "\r", "\x08"}


def test_what_is_no_number_is_a_dash() -> None:
    assert number(None) == number("x") == number(True) == "-"
    assert number(0.5) == "0.500"
