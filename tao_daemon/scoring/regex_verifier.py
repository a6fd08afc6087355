"""1 when the whole answer matches a regular expression, else 0. White space around the answer does not count."""

from __future__ import annotations

from tao_daemon.clients.patterns import compile_pattern
from tao_daemon.scoring.verifier import Failure, Score


class RegexVerifier:
    """Implements `Verifier`. Raises ValueError for a pattern that cannot be used."""

    def __init__(self, pattern: str, *, timeout_seconds: float) -> None:
        self._pattern = compile_pattern(pattern)
        self._timeout = timeout_seconds

    def check(self, text: str) -> Score:
        try:
            # `concurrent` releases the interpreter's lock, so that a slow match stops nobody else.
            found = self._pattern.fullmatch(text.strip(), timeout=self._timeout, concurrent=True)
        except TimeoutError:
            return Failure.TIMEOUT
        return float(found is not None)
