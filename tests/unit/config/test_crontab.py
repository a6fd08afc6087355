"""Weekdays as cron counts them, and lines that are none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tao_daemon.config import parse_config
from tao_daemon.config.crontab import crontab
from tao_daemon.domain.errors import ConfigError

A_WEEK = [datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 8)]  # from a Sunday on


def days(line: str) -> list[str]:
    """Whose midnights the line takes, of one week."""
    trigger = crontab(line)
    return [f"{day:%a}" for day in A_WEEK if trigger.get_next_fire_time(None, day) == day]


@pytest.mark.parametrize(
    ("weekdays", "meant"),
    [
        ("0", ["Sun"]),
        ("7", ["Sun"]),
        ("1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("mon-fri", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("6,0", ["Sun", "Sat"]),
        ("5-7", ["Sun", "Fri", "Sat"]),
        ("1-5/2", ["Mon", "Wed", "Fri"]),
        ("0-5/5", ["Sun", "Fri"]),
        ("FRI-SUN", ["Sun", "Fri", "Sat"]),
        ("*/3", ["Sun", "Wed", "Sat"]),
        ("*", ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]),
    ],
)
def test_weekdays_are_those_of_cron(weekdays: str, meant: list[str]) -> None:
    assert days(f"0 0 * * {weekdays}") == meant


@pytest.mark.parametrize(
    "line",
    [
        "every night",
        "0 3 * *",
        "61 3 * * *",
        "0 3 * * 8",
        "0 3 * * 5-1",
        "0 3 * * 1-5/0",
        "0 3 * * 1,",
        "@daily",
        "   ",
    ],
)
def test_what_is_no_crontab_line_is_refused_by_its_key(line: str) -> None:
    with pytest.raises(ConfigError, match=r"round\.schedule: "):
        parse_config({"round": {"schedule": line}})
