"""How well the answer's value matches the one that the request says it must have.

Both are compared as people read them: Unicode-normalised (NFKC), case folded, any white space one space.

    exact    1 when equal, else 0
    fuzzy    2 · LCS(a, e) / (|a| + |e|), LCS the length of the longest common subsequence of characters (the normalised
             Indel similarity); unrelated sentences of one language reach 0.3 to 0.5
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rapidfuzz.distance import Indel

from tao_daemon.scoring.extraction import Extractor, extractor
from tao_daemon.scoring.verifier import Failure, Score

MAX_CHARACTERS = 20_000
"""Of either value, normalised: the comparison takes the product of both lengths. A longer answer scores 0."""

Mode = Literal["exact", "fuzzy"]


class MatchVerifier:
    """Decides by request and answer. Safe from any thread, never raises, ends in bounded time.

    Raises ValueError for an extractor that there is not.
    """

    def __init__(self, expected: str, answer: str, *, mode: Mode, timeout_seconds: float) -> None:
        """`expected`, `answer`: extractors."""
        self._expected = extractor(expected, timeout_seconds=timeout_seconds)
        self._answer = extractor(answer, timeout_seconds=timeout_seconds)
        self._likeness = _LIKENESS[mode]

    def applies(self, request: Mapping[str, Any]) -> bool:
        """Whether the request holds an expected value of at most `MAX_CHARACTERS`. True when that cannot be found out
        in time: `check` then says so."""
        try:
            return _wanted(self._expected, request) is not None
        except TimeoutError:
            return True

    def check(self, request: Mapping[str, Any], text: str) -> Score:
        try:
            expected = _wanted(self._expected, request)
            found = self._answer.from_answer(text)
        except TimeoutError:
            return Failure.TIMEOUT
        if expected is None:
            return Failure.ERROR
        given = "" if found is None else readable(found)
        return self._likeness(given, expected) if 0 < len(given) <= MAX_CHARACTERS else 0.0


def readable(text: str) -> str:
    """The text as a person compares it: NFKC, case folded, any white space one space."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _wanted(expected: Extractor, request: Mapping[str, Any]) -> str | None:
    wanted = readable(expected.from_request(request) or "")
    return wanted if 0 < len(wanted) <= MAX_CHARACTERS else None


def _exact(found: str, expected: str) -> float:
    return float(found == expected)


def _fuzzy(found: str, expected: str) -> float:
    return float(Indel.normalized_similarity(found, expected))


_LIKENESS: dict[Mode, Callable[[str, str], float]] = {"exact": _exact, "fuzzy": _fuzzy}
