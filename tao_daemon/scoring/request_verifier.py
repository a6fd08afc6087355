"""The verifier that a request brings with it: its own `response_format`.

`json_schema` → that schema; `json_object` → any object; anything else, or a schema that cannot be used → none.
Sampling does not enforce the format (see `sampling.requests`), so that the model can learn it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tao_daemon.scoring.json_verifier import JsonVerifier
from tao_daemon.scoring.verifier import Verifier

TIMEOUT_SECONDS = 1.0
"""Deadline of one answer: the schema is a client's."""
MAX_SCHEMA_BYTES = 64 << 10
"""Of a schema as ASCII JSON; a larger one is no verifier: nothing bounds the time that compiling takes."""
REMEMBERED = 256
"""Verifiers kept; what one takes is bounded with its patterns."""


def request_verifier(request: Mapping[str, Any]) -> Verifier | None:
    """The verifier of a request, None without one. Safe from any thread; a schema not seen lately is compiled."""
    wanted = request.get("response_format")
    if not isinstance(wanted, Mapping):
        return None
    if wanted.get("type") == "json_object":
        return _verifier('{"type": "object"}')
    if wanted.get("type") != "json_schema" or not isinstance(wanted.get("json_schema"), Mapping):
        return None
    schema = wanted["json_schema"].get("schema")
    if not isinstance(schema, Mapping):
        return None
    try:
        text = json.dumps(schema, sort_keys=True)
    except (RecursionError, TypeError, ValueError):
        return None
    return _verifier(text) if len(text) <= MAX_SCHEMA_BYTES else None


@lru_cache(maxsize=REMEMBERED)
def _verifier(schema: str) -> Verifier | None:
    try:
        return JsonVerifier(json.loads(schema), timeout_seconds=TIMEOUT_SECONDS)
    except ValueError:
        return None
