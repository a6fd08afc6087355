"""What a verifier says of one answer: a score, or why there is none."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Failure(StrEnum):
    """Why an answer has no score. Its prompt is then left out and counted; the answer is never scored 0."""

    TIMEOUT = "timeout"
    ERROR = "error"
    OUT_OF_RANGE = "out_of_range"
    """The user's function returned something other than a number in [0, 1]."""
    STUCK = "stuck"
    """Too many earlier calls of the user's function never came back."""


Score = float | Failure
"""A number in [0, 1], or a failure."""


class Verifier(Protocol):
    """Decides by the answer's text alone. Safe from any thread, never raises, ends in bounded time."""

    def check(self, text: str) -> Score: ...
