"""How far an answer is the JSON that was asked for: a graded score, so that a weak model has a way up.

With f the fraction of required keys that are there with a valid value (`SafeSchema.keys_met`):

    1                 the whole answer is one JSON value that meets the schema, and only then
    0.3 + 0.6 · f     the whole answer is a JSON object or array
    0.1 + 0.4 · f     an object or array stands somewhere in the answer (in prose, in a code fence)
    0                 neither

White space around the answer does not count. What JSON is: see `domain.embedded_json`; of several embedded values the
longest counts.
"""

from __future__ import annotations

from typing import Any

from tao_daemon.domain.embedded_json import NOTHING, embedded_json, whole_json
from tao_daemon.scoring.json_schema import OutOfTime, SafeSchema, Undecided
from tao_daemon.scoring.verifier import Failure, Score

MAX_CHARACTERS = 200_000
"""A longer answer is not looked into: 0."""


class JsonVerifier:
    """Implements `Verifier` for one schema. Raises ValueError for a schema that cannot be used."""

    def __init__(self, schema: Any, *, timeout_seconds: float) -> None:
        self._schema = SafeSchema(schema)
        self._timeout = timeout_seconds

    def check(self, text: str) -> Score:
        text = text.strip()
        if len(text) > MAX_CHARACTERS:
            return 0.0
        try:
            return self._graded(text)
        except OutOfTime:
            return Failure.TIMEOUT
        except Undecided:
            return Failure.ERROR

    def _graded(self, text: str) -> float:
        whole = whole_json(text)
        if whole is not NOTHING:
            if self._schema.is_valid(whole, seconds=self._timeout):
                return 1.0
            return (3 + 6 * self._keys_met(whole)) / 10 if isinstance(whole, dict | list) else 0.0
        found = embedded_json(text)
        return 0.0 if found is NOTHING else (1 + 4 * self._keys_met(found)) / 10

    def _keys_met(self, value: Any) -> float:
        return self._schema.keys_met(value, seconds=self._timeout)
