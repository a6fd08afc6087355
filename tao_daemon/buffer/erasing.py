"""Takes prompts out of the buffer's tables, with everything that was derived from them.

Invariants: an erased identifier never comes back, whatever is read or imported again; cluster numbers keep counting
without gaps, and a cluster whose members are all gone resembles nothing any more. The deleted bytes stay in the file
until it is compacted (`copying`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tao_daemon.buffer.signatures import SLOTS, Signature, fingerprint
from tao_daemon.buffer.tables import PROMPT_COLUMNS, Connection, prompt_of, replace_signature
from tao_daemon.domain.prompt import Prompt

_NOBODY = "erased"
"""The task of a cluster without members. A task is a SHA-256 or empty: no prompt has this one."""
_IN_IDS = "IN (SELECT unnest(?::VARCHAR[]))"


class SelectBy(StrEnum):
    """What prompts are chosen by for erasure. Values are names of columns."""

    SUBJECT = "subject"
    TENANT = "tenant"
    CONVERSATION = "conversation"
    PROMPT_ID = "id"


@dataclass(frozen=True, slots=True)
class Selector:
    """Prompts with one value of one attribute."""

    by: SelectBy
    value: str

    def __post_init__(self) -> None:
        if not self.value:
            raise ValueError(f"the {self.by.value} is empty, and would choose every prompt that names none; give one")


def select_ids(connection: Connection, selector: Selector) -> list[str]:
    """Identifiers of the chosen prompts, in the order they were buffered."""
    rows = connection.execute(f"SELECT id FROM prompts WHERE {selector.by.value} = ?", [selector.value]).fetchall()
    return [row[0] for row in rows]


def present_ids(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Those that are in the buffer, in the order they were buffered."""
    rows = connection.execute(f"SELECT id FROM prompts WHERE id {_IN_IDS}", [list(ids)]).fetchall()
    return [row[0] for row in rows]


def forgotten_ids(connection: Connection) -> list[str]:
    """Everything that was ever erased."""
    return [row[0] for row in connection.execute("SELECT id FROM forgotten").fetchall()]


def claiming_rounds(connection: Connection, ids: Sequence[str]) -> list[int]:
    """Rounds that claimed any of them, for training or for the gate."""
    rows = connection.execute(
        "SELECT DISTINCT round FROM claims WHERE list_has_any(prompt_ids, ?::VARCHAR[]) ORDER BY round", [list(ids)]
    ).fetchall()
    return [row[0] for row in rows]


def erase(connection: Connection, ids: Sequence[str]) -> int:
    """Delete prompts for good; how many were there. For use inside a transaction; repeating it changes nothing."""
    led = _clusters_led_by(connection, ids)
    deleted = connection.execute(f"DELETE FROM prompts WHERE id {_IN_IDS}", [list(ids)]).fetchone()
    connection.execute("INSERT OR IGNORE INTO forgotten SELECT unnest(?::VARCHAR[])", [list(ids)])
    connection.execute(
        """
        UPDATE claims SET prompt_ids = list_filter(prompt_ids, lambda id: NOT list_contains(?::VARCHAR[], id))
        WHERE list_has_any(prompt_ids, ?::VARCHAR[])
        """,
        [list(ids), list(ids)],
    )
    heirs = dict(_eldest_members(connection, led))
    for number in led:
        _inherit(connection, number, heirs.get(number))
    return int(deleted[0]) if deleted else 0


def _clusters_led_by(connection: Connection, ids: Sequence[str]) -> list[int]:
    rows = connection.execute(
        f"SELECT number FROM clusters WHERE first_prompt {_IN_IDS} ORDER BY number", [list(ids)]
    ).fetchall()
    return [row[0] for row in rows]


def _eldest_members(connection: Connection, clusters: Sequence[int]) -> Iterator[tuple[int, Prompt]]:
    """Of each cluster that has members left, the one that has been there longest."""
    rows = connection.execute(
        f"""
        SELECT cluster, {PROMPT_COLUMNS} FROM prompts WHERE cluster IN (SELECT unnest(?::INTEGER[]))
        QUALIFY row_number() OVER (PARTITION BY cluster ORDER BY received_at, id) = 1
        """,
        [list(clusters)],
    ).fetchall()
    return ((row[0], prompt_of(row[1:])) for row in rows)


def _inherit(connection: Connection, number: int, heir: Prompt | None) -> None:
    """The cluster is compared by `heir` from here on; without one it is compared by nothing."""
    if heir is None:
        nothing: Signature = np.zeros(SLOTS, dtype=np.uint32)
        replace_signature(connection, number, nothing)
        connection.execute("UPDATE clusters SET task = ?, first_prompt = '' WHERE number = ?", [_NOBODY, number])
        return
    replace_signature(connection, number, fingerprint(heir).signature)
    connection.execute("UPDATE clusters SET first_prompt = ? WHERE number = ?", [heir.id, number])
