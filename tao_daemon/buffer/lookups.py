"""What people and other rooms look up in the buffer: prompts by identifier, and what it holds in more than counts.

Reads only; knows nothing of threads or transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tao_daemon.buffer.disk import database_bytes
from tao_daemon.buffer.tables import PROMPT_COLUMNS, Connection, prompt_of
from tao_daemon.domain.ports import BufferDetails
from tao_daemon.domain.prompt import Prompt

TOP_TENANTS = 20


def read_prompts(connection: Connection, ids: Sequence[str]) -> dict[str, Prompt]:
    """By identifier; what is not there is absent."""
    rows = connection.execute(
        f"SELECT {PROMPT_COLUMNS} FROM prompts WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)]
    ).fetchall()
    return {row[0]: prompt_of(row) for row in rows}


def read_details(connection: Connection, path: Path, *, max_attempts: int) -> BufferDetails:
    tenants = connection.execute(
        "SELECT tenant, count(*) AS prompts FROM prompts GROUP BY tenant ORDER BY prompts DESC, tenant LIMIT ?",
        [TOP_TENANTS],
    ).fetchall()
    counts = connection.execute(
        """
        SELECT count(DISTINCT tenant), min(received_at), max(received_at), count(*) FILTER (state = 'claimed'),
               count(*) FILTER (split = 'train' AND state = 'fresh' AND attempts >= ?)
        FROM prompts
        """,
        [max_attempts],
    ).fetchone()
    assert counts is not None
    return BufferDetails(
        tenants=tuple(tenants),
        tenant_count=counts[0],
        oldest=counts[1],
        newest=counts[2],
        claimed=counts[3],
        exhausted=counts[4],
        file_bytes=database_bytes(path),
    )
