"""All SQL of the buffer: its schema, and one function per statement. Knows nothing of threads or transactions.

A prompt is fresh → claimed → used, or back to fresh with one more attempt; or fresh → shadowed, and back where nothing
came of it. A held-out one is fresh → burned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np

from tao_daemon.buffer.clusters import Assignment, ClusterRecord
from tao_daemon.buffer.selection import Candidate
from tao_daemon.buffer.signatures import Signature
from tao_daemon.domain.ports import BufferStats, TopicPartition
from tao_daemon.domain.prompt import Prompt, Source, Split

Connection = duckdb.DuckDBPyConnection

SCHEMA_VERSION = 2

REHEARSAL = "rehearsal"
"""In place of a split: a claim of prompts that earlier rounds used up."""

SCHEMA = """
CREATE TABLE meta (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE prompts (
    id VARCHAR PRIMARY KEY,
    source_topic VARCHAR NOT NULL,
    source_partition INTEGER NOT NULL,
    source_offset BIGINT NOT NULL,
    received_at DOUBLE NOT NULL,
    tenant VARCHAR NOT NULL,
    conversation VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    request VARCHAR NOT NULL,      -- JSON text, as the client sent it
    cluster INTEGER,               -- NULL: excluded
    split VARCHAR NOT NULL,
    state VARCHAR NOT NULL,        -- fresh, claimed, used, shadowed, burned
    attempts INTEGER NOT NULL      -- rounds that took part and were not accepted
);
CREATE TABLE clusters (
    number INTEGER PRIMARY KEY,
    task VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    signature BLOB NOT NULL,       -- of the first member: 32-bit little-endian
    first_prompt VARCHAR NOT NULL,
    burned BOOLEAN NOT NULL
);
CREATE TABLE offsets (
    topic VARCHAR, partition INTEGER, next_offset BIGINT NOT NULL, PRIMARY KEY (topic, partition)
);
CREATE TABLE claims (
    round INTEGER, split VARCHAR,  -- of the prompts, or 'rehearsal'
    prompt_ids VARCHAR[] NOT NULL, PRIMARY KEY (round, split)
);
CREATE TABLE ended_rounds (round INTEGER PRIMARY KEY, consumed BOOLEAN NOT NULL);
"""

FORGOTTEN = "CREATE TABLE forgotten (id VARCHAR PRIMARY KEY)"
"""Since schema 2: identifiers of erased prompts, digests of where they came from, so that they never come back."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

PROMPT_COLUMNS = (
    "id, source_topic, source_partition, source_offset, received_at, tenant, conversation, subject, request"
)


def read_meta(connection: Connection) -> dict[str, str]:
    """Names and values; empty for a file that has no schema yet."""
    tables = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'meta'").fetchall()
    if not tables:
        return {}
    return dict(connection.execute("SELECT name, value FROM meta").fetchall())


def write_meta(connection: Connection, values: dict[str, str]) -> None:
    for name, value in values.items():
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [name, value])


def known_ids(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those that are buffered, or were and are erased."""
    rows = connection.execute(
        """
        SELECT id FROM (SELECT id FROM prompts UNION ALL SELECT id FROM forgotten)
        WHERE id IN (SELECT unnest(?::VARCHAR[]))
        """,
        [list(ids)],
    ).fetchall()
    return {row[0] for row in rows}


def insert_prompts(connection: Connection, prompts: Sequence[Prompt], assignments: Sequence[Assignment]) -> None:
    """Lists unnested side by side: as fast as Arrow, without it. Members of a burned cluster arrive burned."""
    connection.execute(
        """
        INSERT INTO prompts
        SELECT arrived.*,
               CASE WHEN cluster IN (SELECT number FROM clusters WHERE burned) THEN 'burned' ELSE 'fresh' END,
               0
        FROM (
            SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::INTEGER[]), unnest(?::BIGINT[]),
                   unnest(?::DOUBLE[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]),
                   unnest(?::VARCHAR[]), unnest(?::INTEGER[]) AS cluster, unnest(?::VARCHAR[])
        ) AS arrived
        """,
        [
            [p.id for p in prompts],
            [p.source.topic for p in prompts],
            [p.source.partition for p in prompts],
            [p.source.offset for p in prompts],
            [p.received_at for p in prompts],
            [p.tenant for p in prompts],
            [p.conversation for p in prompts],
            [p.subject for p in prompts],
            [_JSON.encode(p.request) for p in prompts],
            [a.cluster for a in assignments],
            [a.split.value for a in assignments],
        ],
    )


def insert_clusters(connection: Connection, records: Sequence[ClusterRecord], first_prompts: Sequence[str]) -> None:
    connection.execute(
        """
        INSERT INTO clusters
        SELECT unnest(?::INTEGER[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BLOB[]),
               unnest(?::VARCHAR[]), FALSE
        """,
        [
            [r.number for r in records],
            [r.task for r in records],
            [r.split.value for r in records],
            [_packed(r.signature) for r in records],
            list(first_prompts),
        ],
    )


def read_clusters(connection: Connection, *, batch: int = 100_000) -> Iterator[list[ClusterRecord]]:
    """Every cluster in the order of its number, in batches."""
    result = connection.execute("SELECT number, task, split, signature FROM clusters ORDER BY number")
    while rows := result.fetchmany(batch):
        yield [ClusterRecord(n, task, Split(split), _unpacked(packed)) for n, task, split, packed in rows]


def read_first_prompts(connection: Connection) -> list[tuple[int, Prompt]]:
    """The first member of every cluster, by the cluster's number."""
    rows = connection.execute(
        f"SELECT number, {PROMPT_COLUMNS} FROM clusters JOIN prompts ON id = first_prompt ORDER BY number"
    ).fetchall()
    return [(row[0], prompt_of(row[1:])) for row in rows]


def replace_signature(connection: Connection, number: int, signature: Signature) -> None:
    connection.execute("UPDATE clusters SET signature = ? WHERE number = ?", [_packed(signature), number])


def advance_offsets(connection: Connection, next_offsets: dict[TopicPartition, int]) -> None:
    """Never backwards: what was read stays read."""
    connection.execute(
        """
        INSERT INTO offsets SELECT unnest(?::VARCHAR[]), unnest(?::INTEGER[]), unnest(?::BIGINT[])
        ON CONFLICT (topic, partition) DO UPDATE SET next_offset = greatest(next_offset, excluded.next_offset)
        """,
        [[topic for topic, _ in next_offsets], [number for _, number in next_offsets], list(next_offsets.values())],
    )


def read_offsets(connection: Connection, topic: str) -> dict[int, int]:
    return dict(connection.execute("SELECT partition, next_offset FROM offsets WHERE topic = ?", [topic]).fetchall())


def read_candidates(
    connection: Connection, split: Split, *, max_attempts: int, page: tuple[int, int]
) -> list[Candidate]:
    """Available prompts from page[0] on, page[1] at most: the newest of every tenant, then the second newest …"""
    rows = connection.execute(
        f"""
        WITH wanted AS (
            SELECT id FROM prompts WHERE split = ? AND state = 'fresh' AND attempts < ?
            ORDER BY row_number() OVER (PARTITION BY tenant ORDER BY received_at DESC, id), received_at DESC, id
            OFFSET ? LIMIT ?
        )
        SELECT cluster, attempts, {PROMPT_COLUMNS} FROM wanted JOIN prompts USING (id)
        """,
        [split.value, max_attempts, *page],
    ).fetchall()
    return [Candidate(prompt_of(row[2:]), row[0], row[1]) for row in rows]


def read_shadow_candidates(connection: Connection, *, page: tuple[int, int]) -> list[Candidate]:
    """Training prompts from page[0] on, page[1] at most, newest first, of clusters that nothing was learned from."""
    rows = connection.execute(
        f"""
        WITH touched AS (
            SELECT cluster FROM prompts
            WHERE cluster IS NOT NULL AND (state IN ('claimed', 'used', 'shadowed') OR attempts > 0)
        ), wanted AS (
            SELECT id FROM prompts
            WHERE split = 'train' AND state = 'fresh' AND cluster NOT IN (SELECT cluster FROM touched)
            ORDER BY received_at DESC, id OFFSET ? LIMIT ?
        )
        SELECT cluster, {PROMPT_COLUMNS} FROM wanted JOIN prompts USING (id)
        """,
        [*page],
    ).fetchall()
    return [Candidate(prompt_of(row[1:]), row[0]) for row in rows]


def read_used_candidates(connection: Connection, round_id: int, *, limit: int) -> list[Candidate]:
    """Training prompts that earlier rounds used up, at most `limit`: drawn by a hash, another draw for every round."""
    rows = connection.execute(
        f"""
        WITH wanted AS (
            SELECT id FROM prompts WHERE split = 'train' AND state = 'used' ORDER BY md5(id || '/' || ?), id LIMIT ?
        )
        SELECT cluster, {PROMPT_COLUMNS} FROM wanted JOIN prompts USING (id) ORDER BY md5(id || '/' || ?), id
        """,
        [str(round_id), limit, str(round_id)],
    ).fetchall()
    return [Candidate(prompt_of(row[1:]), row[0]) for row in rows]


def mark_shadowed(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute("UPDATE prompts SET state = 'shadowed' WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)])


def unmark_shadowed(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(
        "UPDATE prompts SET state = 'fresh' WHERE state = 'shadowed' AND id IN (SELECT unnest(?::VARCHAR[]))",
        [list(ids)],
    )


def read_claim(connection: Connection, round_id: int, purpose: str) -> list[Prompt] | None:
    """The prompts of a claim in their order; None when the round has not claimed yet."""
    key = [round_id, purpose]
    if not connection.execute("SELECT 1 FROM claims WHERE round = ? AND split = ?", key).fetchall():
        return None
    rows = connection.execute(
        f"""
        WITH wanted AS (
            SELECT unnest(prompt_ids) AS id, generate_subscripts(prompt_ids, 1) AS place
            FROM claims WHERE round = ? AND split = ?
        )
        SELECT {PROMPT_COLUMNS} FROM wanted JOIN prompts USING (id) ORDER BY place
        """,
        key,
    ).fetchall()
    return [prompt_of(row) for row in rows]


def insert_claim(connection: Connection, round_id: int, purpose: str, ids: Sequence[str]) -> None:
    connection.execute("INSERT INTO claims VALUES (?, ?, ?::VARCHAR[])", [round_id, purpose, list(ids)])


def mark_claimed(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute("UPDATE prompts SET state = 'claimed' WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)])


def burn(connection: Connection, ids: Sequence[str]) -> None:
    """The clusters of these prompts never return to held-out, and neither does any member."""
    connection.execute(
        """
        UPDATE clusters SET burned = TRUE
        WHERE number IN (SELECT cluster FROM prompts WHERE id IN (SELECT unnest(?::VARCHAR[])))
        """,
        [list(ids)],
    )
    connection.execute(
        """
        UPDATE prompts SET state = 'burned'
        WHERE state = 'fresh' AND cluster IN (SELECT number FROM clusters WHERE burned)
        """
    )


def is_ended(connection: Connection, round_id: int) -> bool:
    return bool(connection.execute("SELECT 1 FROM ended_rounds WHERE round = ?", [round_id]).fetchall())


def end_round(connection: Connection, round_id: int, *, consumed: bool, tried: bool) -> None:
    """Its training prompts are used, or fresh again, where they were `tried` with one more attempt."""
    connection.execute("INSERT INTO ended_rounds VALUES (?, ?)", [round_id, consumed])
    connection.execute(
        """
        UPDATE prompts
        SET state = CASE WHEN ? THEN 'used' ELSE 'fresh' END, attempts = attempts + CASE WHEN ? THEN 1 ELSE 0 END
        WHERE state = 'claimed'
          AND id IN (SELECT unnest(prompt_ids) FROM claims WHERE round = ? AND split = 'train')
        """,
        [consumed, tried and not consumed, round_id],
    )


def use_up(connection: Connection, ids: Sequence[str]) -> None:
    """Of these training prompts those that no round holds."""
    connection.execute(
        """
        UPDATE prompts SET state = 'used'
        WHERE split = 'train' AND state = 'fresh' AND id IN (SELECT unnest(?::VARCHAR[]))
        """,
        [list(ids)],
    )


def read_stats(connection: Connection, *, max_attempts: int) -> BufferStats:
    counts = connection.execute(
        """
        SELECT count(*) FILTER (split = 'train'),
               count(*) FILTER (split = 'train' AND state = 'fresh' AND attempts < ?),
               count(*) FILTER (split = 'held_out'),
               count(*) FILTER (split = 'held_out' AND state = 'fresh'),
               count(*) FILTER (split = 'excluded'),
               (SELECT count(*) FROM clusters WHERE first_prompt <> '')
        FROM prompts
        """,
        [max_attempts],
    ).fetchone()
    assert counts is not None
    return BufferStats(*counts)


def prompt_of(row: Sequence[Any]) -> Prompt:
    source = Source(row[1], row[2], row[3])
    return Prompt(row[0], json.loads(row[8]), source, row[4], tenant=row[5], conversation=row[6], subject=row[7])


def _packed(signature: Signature) -> bytes:
    return signature.astype("<u4").tobytes()


def _unpacked(packed: bytes) -> Signature:
    return np.frombuffer(packed, dtype="<u4").astype(np.uint32)
