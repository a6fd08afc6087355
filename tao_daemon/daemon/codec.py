"""States, events and commands as plain JSON, for the journal. Unknown or missing fields are errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from tao_daemon.daemon.state import State
from tao_daemon.domain.commands import Command
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.events import Event

_EVENTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode_event(event: Event) -> dict[str, Any]:
    kind: type = type(event)
    return {"type": kind.__name__, **_adapter(kind).dump_python(event, mode="json")}


def decode_event(data: Mapping[str, Any]) -> Event:
    """The event of a journal entry. Raises JournalError for a type this version does not know."""
    fields = dict(data)
    kind = _EVENTS.get(fields.pop("type", ""))
    if kind is None:
        raise JournalError(f"journal holds an event of unknown type {data.get('type')!r}; upgrade tao-daemon")
    return _validated(kind, fields)  # type: ignore[no-any-return]


def encode_state(state: State) -> dict[str, Any]:
    return _adapter(State).dump_python(state, mode="json")  # type: ignore[no-any-return]


def decode_state(data: Mapping[str, Any]) -> State:
    return _validated(State, data)  # type: ignore[no-any-return]


def encode_command(command: Command) -> dict[str, Any]:
    kind: type = type(command)
    return {"type": kind.__name__, **_adapter(kind).dump_python(command, mode="json")}


def _validated(kind: type, data: Mapping[str, Any]) -> Any:
    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        raise JournalError(f"journal holds a {kind.__name__} that this version cannot read: {error}") from None
