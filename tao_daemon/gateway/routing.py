"""Which model answers a request, under which name, on which replica. Pure.

Clients know one public name; vLLM knows the base model and adapters. A request is bound to one version for
its whole life; the versions after the first are where it may go while no byte was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tao_daemon.domain.rollout import Routes


class Kind(StrEnum):
    """What a version is, for metrics: an adapter's digest is no label value."""

    ADAPTER = "adapter"
    PREVIOUS = "previous"
    BASE = "base"


@dataclass(frozen=True, slots=True)
class Version:
    """`model` is the name on the servers; `label` is what clients are told."""

    kind: Kind
    model: str
    label: str


class RequestRefused(ValueError):
    """A request that goes nowhere, with its `status` and a `code` for programs. Never quotes the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def versions(routes: Routes, base_model: str) -> tuple[Version, ...]:
    """The version to serve with, then its stand-ins: the previous adapter and at last the base model."""
    found = []
    if routes.adapter is not None:
        found.append(Version(Kind.ADAPTER, routes.adapter, routes.adapter))
        if routes.previous not in (None, routes.adapter):
            found.append(Version(Kind.PREVIOUS, str(routes.previous), str(routes.previous)))
    return (*found, Version(Kind.BASE, base_model, "base"))


def parse_request(raw: bytes, public_model: str) -> dict[str, Any]:
    """A request for the public model, or without a model. Raises RequestRefused."""
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RequestRefused(400, "invalid_json", "The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise RequestRefused(400, "invalid_json", "The request body must be a JSON object.")
    # The name asked for is not repeated: it is the client's text.
    if body.get("model") not in (None, public_model):
        raise RequestRefused(404, "model_not_found", f"This endpoint serves the model {public_model!r} only.")
    return body


def rewrite(body: Mapping[str, Any], version: Version) -> bytes:
    """The request as the server must see it: everything as it came, but for the model."""
    return json.dumps({**body, "model": version.model}, ensure_ascii=False).encode()


def replica_order(in_flight: Sequence[int], resting: Sequence[bool], turn: int) -> list[int]:
    """Replicas to try, best first: not resting after a failure, then least in flight, then in turn."""
    count = len(in_flight)
    return sorted(range(count), key=lambda i: (resting[i], in_flight[i], (i - turn) % count))


def error_body(message: str, kind: str, code: str) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def model_list(public_model: str) -> dict[str, Any]:
    """GET /v1/models: the public name alone."""
    card = {"id": public_model, "object": "model", "created": 0, "owned_by": "tao-daemon"}
    return {"object": "list", "data": [card]}


def routes_to_json(routes: Routes) -> dict[str, Any]:
    return {"generation": routes.generation, "adapter": routes.adapter, "previous": routes.previous}


def routes_from_json(raw: bytes) -> Routes:
    """Read routes from a file or the daemon. Raises ValueError."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("routes are not a JSON object")
    generation, names = value.get("generation"), (value.get("adapter"), value.get("previous"))
    if type(generation) is not int or generation < 0:
        raise ValueError(f"routes have no valid generation: {generation!r}")
    if not all(name is None or (isinstance(name, str) and name) for name in names):
        raise ValueError(f"routes of generation {generation} name no valid adapters: {names!r}")
    return Routes(generation, *names)


class ModelRenamer:
    """Puts the public name in place of the server's into an answer, line by line for a stream of events.

    Only the first `"model":"…"` of a line counts. The same bytes cannot be part of generated text: inside a
    JSON string every quote is escaped.
    """

    MAX_LINE_BYTES = 1_048_576
    """A longer line passes as it is, so that memory stays bounded."""

    def __init__(self, version: Version, public_model: str) -> None:
        name = json.dumps(version.model, ensure_ascii=False).encode()
        self._pattern = re.compile(rb'"model"\s*:\s*' + re.escape(name))
        self._public = b'"model":' + json.dumps(public_model, ensure_ascii=False).encode()
        self._rest = b""

    def whole(self, body: bytes) -> bytes:
        """Rename in an answer that is complete."""
        return self._pattern.sub(lambda _: self._public, body, count=1)

    def feed(self, chunk: bytes) -> bytes:
        """Rename in every line that is complete now; keeps the rest, which no client could use yet."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        done = b"".join(self.whole(line) + b"\n" for line in lines)
        if len(self._rest) > self.MAX_LINE_BYTES:
            return done + self.flush()
        return done

    def flush(self) -> bytes:
        """What is left at the end of the stream."""
        rest, self._rest = self._rest, b""
        return self.whole(rest)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
