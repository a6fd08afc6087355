"""Durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.cli.durations import clock, format_duration, moment, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("45", 45),
        ("1 H", 3600),
    ],
)
def test_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5x", "m5", "1h30", "1..5h", "inf", "nan"])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (125, "2 m 05 s"),
        (12_000, "3 h 20 m"),
        (187_200, "2 d 4 h"),
        (-3, "0 s"),
    ],
)
def test_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**8))
def test_what_is_shown_can_be_read_back_to_the_unit_shown(seconds: int) -> None:
    shown = parse_duration(format_duration(seconds).replace(" ", ""))
    assert 0 <= seconds - shown < (1 if seconds < 3600 else 60 if seconds < 86_400 else 3600)


def test_times_are_utc() -> None:
    assert moment(1_700_000_000) == "2023-11-14 22:13:20"
    assert clock(1_700_000_000) == "22:13:20"
    assert moment(None) == "-"
