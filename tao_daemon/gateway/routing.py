"""Which version of the model answers a request, under which name, on which replica. Pure.

Clients know one public name; vLLM knows the base model and adapters. A request is bound to one version for
its whole life; the versions after the first are where it may go while no byte was sent.

request → its arm → version, then its stand-ins → replicas, best first
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tao_daemon.domain.rollout import Routes


class Kind(StrEnum):
    """What a version is, for metrics: an adapter's digest is no label value."""

    CANDIDATE = "candidate"
    ADAPTER = "adapter"
    PREVIOUS = "previous"
    BASE = "base"


@dataclass(frozen=True, slots=True)
class Version:
    """`model` is the name on the servers; `label` is what clients are told."""

    kind: Kind
    model: str
    label: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that follows from one generation of routes, worked out once."""

    routes: Routes
    incumbent: tuple[Version, ...]
    """The versions to try, in order, for a request of the incumbent's arm."""
    candidate: tuple[Version, ...]
    """The same for the candidate's arm; the incumbent's while there is no candidate."""
    unready: frozenset[str]
    """Base URLs, without a slash at the end, of replicas that are asked for the base model alone."""


class RequestRefused(ValueError):
    """A request that goes nowhere, with its `status` and a `code` for programs. Never quotes the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def plan(routes: Routes, base_model: str) -> Plan:
    """Each arm's version, then its stand-ins: the incumbent, the previous adapter and at last the base model."""
    base = Version(Kind.BASE, base_model, "base")
    named: list[Version] = []
    if routes.adapter is not None:
        named.append(Version(Kind.ADAPTER, routes.adapter, routes.adapter))
        # On the base model an undone adapter is no stand-in.
        if routes.previous not in (None, routes.adapter):
            named.append(Version(Kind.PREVIOUS, str(routes.previous), str(routes.previous)))
    incumbent = (*named, base)
    candidate = incumbent
    if routes.candidate not in (None, routes.adapter):
        first = Version(Kind.CANDIDATE, str(routes.candidate), str(routes.candidate))
        candidate = (first, *(version for version in incumbent if version.model != first.model))
    return Plan(routes, incumbent, candidate, frozenset(url.rstrip("/") for url in routes.unready))


def parse_request(raw: bytes, public_model: str) -> dict[str, Any]:
    """A request for the public model, or without a model. Raises RequestRefused."""
    try:
        body = _DECODER.decode(raw.decode())
    except (ValueError, RecursionError):
        raise RequestRefused(400, "invalid_json", "The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise RequestRefused(400, "invalid_json", "The request body must be a JSON object.")
    # The name asked for is not repeated: it is the client's text.
    if body.get("model") not in (None, public_model):
        raise RequestRefused(404, "model_not_found", f"This endpoint serves the model {public_model!r} only.")
    return body


def rewrite(raw: bytes, body: dict[str, Any], version: Version) -> bytes:
    """The request as the server must see it: everything as it came, but for the model.

    `body` is `raw`, parsed. Where the one key that can be meant is plain to see, its value alone is replaced:
    writing long prompts anew would cost more than all the rest. Otherwise the request is written anew.
    """
    model = json.dumps(version.model).encode()
    # An escape such as \\u006d could spell the key where these bytes are not.
    if raw.count(b'"model"') == 1 and "model" in body and b"\\u006" not in raw:
        if found := _MODEL_MEMBER.search(raw):
            return b"%b%b%b" % (raw[: found.start(1)], model, raw[found.end(1) :])
    elif body and "model" not in body:
        start = raw.index(b"{") + 1
        return b'%b"model":%b,%b' % (raw[:start], model, raw[start:])
    return json.dumps({**body, "model": version.model}).encode()


def replica_order(in_flight: Sequence[int], resting: Sequence[bool], turn: int) -> list[int]:
    """Replicas to try, best first: not resting or unready, then least in flight, then in turn."""
    count = len(in_flight)
    return sorted(range(count), key=lambda i: (resting[i], in_flight[i], (i - turn) % count))


def error_body(message: str, kind: str, code: str) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def model_list(public_model: str) -> dict[str, Any]:
    """GET /v1/models: the public name alone."""
    card = {"id": public_model, "object": "model", "created": 0, "owned_by": "tao-daemon"}
    return {"object": "list", "data": [card]}


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_MODEL_MEMBER = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*"|null)')
