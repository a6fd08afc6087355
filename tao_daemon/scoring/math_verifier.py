"""1 when the answer's number equals the value of an expression in the request, else 0.

Both are exact fractions (see `arithmetic`, `domain.numbers`): equal means |a − e| ≤ tolerance · |e|. The answer's
number is the first one in what its extractor finds; an answer without one scores 0. A percent sign means hundredths
on both sides.
request → expression → its value; answer → number; both compared
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tao_daemon.domain.numbers import parse_number
from tao_daemon.scoring.arithmetic import evaluate
from tao_daemon.scoring.extraction import extractor
from tao_daemon.scoring.verifier import Failure, Score


class MathVerifier:
    """Decides by request and answer. Safe from any thread, never raises, ends in bounded time.

    Raises ValueError for an extractor that there is not.
    """

    def __init__(self, expected: str, answer: str, *, tolerance: float, timeout_seconds: float) -> None:
        """`expected`, `answer`: extractors. `tolerance`: largest relative difference that counts as equal."""
        self._expected = extractor(expected, timeout_seconds=timeout_seconds)
        self._answer = extractor(answer, timeout_seconds=timeout_seconds)
        self._tolerance = Fraction(tolerance)

    def applies(self, request: Mapping[str, Any]) -> bool:
        """Whether the request holds an expression that has a value. True when that cannot be found out in time:
        `check` then says so."""
        try:
            return self._value(request) is not None
        except TimeoutError:
            return True

    def check(self, request: Mapping[str, Any], text: str) -> Score:
        try:
            expected = self._value(request)
            found = self._answer.from_answer(text)
        except TimeoutError:
            return Failure.TIMEOUT
        if expected is None:
            return Failure.ERROR
        number = None if found is None else parse_number(found)
        return float(number is not None and abs(number - expected) <= self._tolerance * abs(expected))

    def _value(self, request: Mapping[str, Any]) -> Fraction | None:
        expression = self._expected.from_request(request)
        return None if expression is None else evaluate(expression)
