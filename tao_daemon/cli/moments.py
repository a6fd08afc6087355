"""Moments as people write them: a date, a date and time, or how long ago."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from tao_daemon.cli.durations import parse_duration


def parse_moment(text: str, now: float) -> float:
    """Unix second of `2026-11-01`, `2026-11-01T09:30`, `2026-11-01T09:30:00+01:00`, or of `7d` ago. Raises ValueError.

    Without an offset a time is UTC.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no moment; write it like 2026-11-01, 2026-11-01T09:30 or 7d (ago)") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class Moment(click.ParamType[float]):
    """An option that takes a moment; its value is Unix seconds."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_moment(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)
