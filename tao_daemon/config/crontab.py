"""A crontab line as APScheduler's trigger: five fields in UTC, weekdays as cron counts them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def crontab(line: str) -> CronTrigger:
    """Raises ValueError that says what is wrong.

    APScheduler 3 takes weekday 0 for Monday, where cron has Sunday (https://github.com/agronholm/apscheduler/issues/286),
    and no steps between weekdays: it gets the days one by one, by name.
    """
    from apscheduler.triggers.cron import CronTrigger

    *fields, weekdays = line.split()
    if len(fields) != 4:
        raise ValueError('a crontab line has five fields, such as "0 3 * * *": minute, hour, day, month, weekday')
    return CronTrigger.from_crontab(" ".join([*fields, ",".join(_days(weekdays))]), timezone=UTC)


def checked(line: str) -> str:
    """The line as it is, or "" for none."""
    if line:
        crontab(line)
    return line


def _days(field: str) -> list[str]:
    return [_WEEKDAYS[number % 7] for part in field.split(",") for number in _numbers(part)]


def _numbers(part: str) -> range:
    """Of "*", a day or a range of days, with or without a step; 7 is Sunday too."""
    span, _, step = part.partition("/")
    if step and not (step.isdecimal() and int(step)):
        raise ValueError(f"{part!r}: a step is a number from 1 on")
    first, _, last = ("0-6" if span == "*" else span).partition("-")
    begin, end = _number(first), _number(last or first)
    end = 7 if last and end == 0 else end
    if end < begin:
        raise ValueError(f"{part!r} ends before it begins; the week begins with Sunday, 0, or ends with it, 7")
    return range(begin, end + 1, int(step or 1))


def _number(day: str) -> int:
    if day.lower() in _WEEKDAYS:
        return _WEEKDAYS.index(day.lower())
    if not (day.isdecimal() and int(day) <= 7):
        raise ValueError(f"weekday {day!r} is none: 0 to 7, where 0 and 7 are Sunday, or sun to sat")
    return int(day)
