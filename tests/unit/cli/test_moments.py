from __future__ import annotations

import pytest

from tao_daemon.cli.buffer_view import size
from tao_daemon.cli.moments import parse_moment

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00", 3600.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("2h", NOW - 7200.0),
        ("7d", NOW - 604_800.0),
        ("30", NOW - 30.0),
    ],
)
def test_moments(text: str, expected: float) -> None:
    assert parse_moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "1970-13-01", "-7d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment; write it like"):
        parse_moment(text, NOW)


def test_sizes() -> None:
    assert [size(0), size(1023), size(1024), size(3 * 1024**3)] == ["0 B", "1023 B", "1.0 KiB", "3.0 GiB"]
