"""Pace and streams, the parts of the demo's clients that need no server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.embedded.producer import Pace, streamed_text

PACE = Pace(first=320, first_rate=16.0, rate=1.0)


@pytest.mark.parametrize(("seconds", "due"), [(0.0, 0), (1.0, 16), (10.0, 160), (20.0, 320), (30.0, 330), (320.0, 620)])
def test_a_quick_start_then_a_steady_rate(seconds: float, due: int) -> None:
    assert PACE.due(seconds) == due


@given(st.floats(0, 1e5), st.floats(0, 100))
def test_what_is_due_never_shrinks(seconds: float, more: float) -> None:
    assert PACE.due(seconds) <= PACE.due(seconds + more)


def event(data: object) -> str:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def delta(**content: object) -> str:
    return event({"choices": [{"delta": content}]})


def test_a_whole_stream_gives_its_text() -> None:
    events = delta(role="assistant", content="") + delta(content="{") + delta(content="}") + delta()
    assert streamed_text(events + event({"choices": []}) + event("[DONE]")) == "{}"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ("", "without"),
        (delta(content="{"), "without"),
        (delta(content="{") + event({"error": {"message": "cut"}}) + event("[DONE]"), "error"),
    ],
)
def test_a_cut_stream_is_an_error(events: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        streamed_text(events)
