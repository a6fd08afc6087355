"""Reads the whole buffer in the order it was filled, one page of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tao_daemon.buffer.tables import PROMPT_COLUMNS, Connection, prompt_of
from tao_daemon.domain.prompt import Prompt, Split

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which prompts; None does not choose."""

    tenant: str | None = None
    since: float | None = None
    """Unix second of arrival, inclusive."""
    split: Split | None = None


def count_prompts(connection: Connection, wanted: Filter) -> int:
    condition, values = _condition(wanted)
    row = connection.execute(f"SELECT count(*) FROM prompts WHERE {condition}", values).fetchone()
    assert row is not None
    return int(row[0])


def read_all(connection: Connection, wanted: Filter) -> Iterator[tuple[Prompt, Split]]:
    """Every prompt that the filter lets through. The connection must run nothing else meanwhile."""
    condition, values = _condition(wanted)
    result = connection.execute(f"SELECT {PROMPT_COLUMNS}, split FROM prompts WHERE {condition}", values)
    while rows := result.fetchmany(_PAGE):
        for row in rows:
            yield prompt_of(row), Split(row[-1])


def _condition(wanted: Filter) -> tuple[str, list[object]]:
    parts: list[tuple[str, object]] = []
    if wanted.tenant is not None:
        parts.append(("tenant = ?", wanted.tenant))
    if wanted.since is not None:
        parts.append(("received_at >= ?", wanted.since))
    if wanted.split is not None:
        parts.append(("split = ?", wanted.split.value))
    return " AND ".join(["TRUE", *(part for part, _ in parts)]), [value for _, value in parts]
