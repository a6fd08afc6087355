"""What is said of one answer: a score, or why there is none; and the two shapes of those who say it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from tao_daemon.domain.prompt import Prompt


class Failure(StrEnum):
    """Why an answer has no score. Its prompt is then left out and counted; the answer is never scored 0."""

    TIMEOUT = "timeout"
    ERROR = "error"
    OUT_OF_RANGE = "out_of_range"
    """Something other than a number in [0, 1], or a raw score that is not finite."""
    STUCK = "stuck"
    """Too many earlier calls of the user's function never came back."""
    UNREADABLE = "unreadable"
    """The model's replies were not what was asked for, however often it was asked."""
    UNAVAILABLE = "unavailable"
    """The server or the process that scores does not answer."""
    UNTRUSTED = "untrusted"
    """The judge prefers meaningless answers to real ones."""


NO_ANSWER = frozenset({Failure.UNAVAILABLE, Failure.TIMEOUT})
"""Of a server: it may be gone."""

Score = float | Failure
"""A number in [0, 1], or a failure."""


class Verifier(Protocol):
    """Decides by the answer's text alone. Safe from any thread, never raises, ends in bounded time."""

    def check(self, text: str) -> Score: ...


class Grader(Protocol):
    """Scores the completions of one prompt together. Never raises for what a server, a model or a text does.

    Use from one event loop; `applies`, `is_free` and `is_absolute` are safe from any thread.
    """

    @property
    def is_free(self) -> bool:
        """Whether each text is scored by itself, at once and at no cost: scores are then to be had while sampling."""
        ...

    @property
    def is_absolute(self) -> bool:
        """Whether `absolute` says anything of the two answers that a gate compares."""
        ...

    @property
    def unanswered(self) -> int:
        """How many of the last calls in a row got no answer from the server that scores, only failures in NO_ANSWER;
        0 without a server. Calls that needed none do not count."""
        ...

    def applies(self, prompt: Prompt) -> bool:
        """Whether there is anything in the prompt to score by."""
        ...

    async def grade(self, prompt: Prompt, texts: Sequence[str]) -> list[Score]:
        """One score per text; what it means may depend on the others."""
        ...

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> list[Score] | None:
        """One score per text for evaluation; None from a scorer that says nothing of so few."""
        ...

    async def close(self) -> None:
        """Give back what it holds. Idempotent."""
        ...
