"""The prompt buffer in one DuckDB file, on one thread.

Invariants: prompts and the offsets behind them commit in one transaction; after any failure of the database it is
closed, and the next call opens it again and rebuilds the cluster index from its table, so that memory never knows
more than the file. Errors name no prompt text.

open → ingest | claim → release … → close
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb

from tao_daemon.buffer import lookups, tables
from tao_daemon.buffer.acceptance import patient
from tao_daemon.buffer.clusters import Assignment, ClusterIndex, ClusterRecord
from tao_daemon.buffer.database import open_database, transaction
from tao_daemon.buffer.disk import DiskReserve
from tao_daemon.buffer.ingesting import counted, new_clusters, unseen
from tao_daemon.buffer.selection import Candidate, choose, draw, in_order_of_arrival
from tao_daemon.buffer.signatures import fingerprint
from tao_daemon.clients.duckdb import failure_name
from tao_daemon.clients.failpoints import reach
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Accepts, BufferDetails, BufferStats, Claim, Ingest, Ingested
from tao_daemon.domain.prompt import Prompt, Split
from tao_daemon.domain.signals import BufferFailed, BufferMeasured, BufferWritten, Emit, PromptsBuffered

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SCAN_LIMIT = 50_000
"""Candidates after which one claim looks no further: the store's thread serves intake too."""


class DuckDBStore:
    """Implements `domain.ports.PromptStore`. Opening raises InstanceError or PromptStoreError."""

    def __init__(
        self,
        path: Path,
        *,
        held_out_fraction: float,
        similarity: float,
        max_attempts: int,
        min_free_disk_mib: int,
        emit: Emit,
        salt: str = "",
    ) -> None:
        self._path = path
        self._new_index = partial(ClusterIndex, similarity=similarity, held_out_fraction=held_out_fraction, salt=salt)
        self._max_attempts = max_attempts
        self._disk = DiskReserve(path, floor_mib=min_free_disk_mib)
        self._emit = emit
        self._index = self._new_index()
        self._connection: tables.Connection | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tao-duckdb")
        try:
            self._executor.submit(self._open).result()
        except BaseException:
            self._executor.shutdown()
            raise

    def submit(self, batch: Ingest) -> Future[Ingested]:
        return self._enqueue(lambda connection: self._ingest(connection, batch))

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        return await self._do(lambda connection: tables.read_offsets(connection, topic))

    async def stats(self) -> BufferStats:
        return await self._do(self._stats)

    async def details(self) -> BufferDetails:
        return await self._do(
            lambda connection: lookups.read_details(connection, self._path, max_attempts=self._max_attempts)
        )

    async def read(self, ids: Sequence[str]) -> Mapping[str, Prompt]:
        return await self._do(lambda connection: lookups.read_prompts(connection, ids))

    async def claimable(self, split: Split, claim: Claim) -> int:
        return await self._do(lambda connection: len(self._choose(connection, claim, split)))

    async def claim_training(self, claim: Claim) -> Sequence[Prompt]:
        return await self._do(lambda connection: self._claim_split(connection, claim, Split.TRAIN, tables.mark_claimed))

    async def claim_rehearsal(self, claim: Claim) -> Sequence[Prompt]:
        return await self._do(lambda connection: self._claim_rehearsal(connection, claim))

    async def claim_held_out(self, claim: Claim) -> Sequence[Prompt]:
        return await self._do(lambda connection: self._claim_split(connection, claim, Split.HELD_OUT, tables.burn))

    async def claim_shadow(self, limit: int, tenant_share: float, accepts: Accepts) -> Sequence[Prompt]:
        return await self._do(lambda connection: self._shadow(connection, limit, tenant_share, accepts))

    async def return_shadowed(self, ids: Sequence[str]) -> None:
        await self._do(lambda connection: self._return_shadowed(connection, ids))

    async def release(self, round_id: int, *, consumed: bool, tried: bool = True, carried: Sequence[str] = ()) -> None:
        used = carried if consumed else ()
        await self._do(lambda connection: self._release(connection, round_id, consumed, tried, used))

    def close(self) -> None:
        """Finish what was submitted and close the file. Idempotent; blocks."""
        with suppress(RuntimeError):  # already closed
            self._executor.submit(self._discard)
        self._executor.shutdown()

    async def _do(self, work: Callable[[tables.Connection], T]) -> T:
        return await asyncio.wrap_future(self._enqueue(work))

    def _enqueue(self, work: Callable[[tables.Connection], T]) -> Future[T]:
        try:
            return self._executor.submit(self._attempt, work)
        except RuntimeError:
            refused: Future[T] = Future()
            refused.set_exception(PromptStoreError(f"the buffer {self._path} is closed"))
            return refused

    def _attempt(self, work: Callable[[tables.Connection], T]) -> T:
        """Run on the store's thread; after a failure nothing in memory is trusted any more."""
        try:
            return work(self._connection or self._open())
        except duckdb.Error as error:
            self._disk.release()
            self._discard()
            self._emit(BufferFailed("database"))
            logger.error("buffer operation failed", extra={"path": str(self._path), "failure": failure_name(error)})
            raise PromptStoreError(
                f"{self._path}: {failure_name(error)}; it is opened again for the next try"
            ) from None
        except PromptStoreError:
            raise
        except BaseException:
            self._discard()
            raise

    def _open(self) -> tables.Connection:
        connection = open_database(self._path)
        self._index = self._new_index()
        for records in tables.read_clusters(connection):
            self._index.restore(records)
        self._connection = connection
        return connection

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(duckdb.Error):
                connection.close()

    def _ingest(self, connection: tables.Connection, batch: Ingest) -> Ingested:
        reach("buffer.ingest")
        began = time.monotonic()
        self._require_room()
        prompts = unseen(batch.prompts, tables.known_ids(connection, [p.id for p in batch.prompts]))
        fingerprints = [fingerprint(prompt) for prompt in prompts]
        assignments = self._index.assign(fingerprints)
        clusters = new_clusters(fingerprints, assignments)
        with transaction(connection):
            self._insert(connection, prompts, assignments, clusters)
            if batch.next_offsets:
                tables.advance_offsets(connection, dict(batch.next_offsets))
        self._emit(BufferWritten(time.monotonic() - began))
        result = counted(assignments, duplicates=len(batch.prompts) - len(prompts))
        if batch.prompts:
            self._emit(PromptsBuffered(result.train, result.held_out, result.excluded, result.duplicates))
        return result

    def _require_room(self) -> None:
        try:
            self._disk.require()
        except PromptStoreError:
            self._emit(BufferFailed("disk_floor"))
            raise

    def _stats(self, connection: tables.Connection) -> BufferStats:
        with suppress(OSError):
            self._emit(BufferMeasured(*self._disk.measure()))
        return tables.read_stats(connection, max_attempts=self._max_attempts)

    def _insert(
        self,
        connection: tables.Connection,
        prompts: Sequence[Prompt],
        assignments: Sequence[Assignment],
        clusters: Sequence[ClusterRecord],
    ) -> None:
        if clusters:
            firsts = [p.id for p, a in zip(prompts, assignments, strict=True) if a.is_new]
            tables.insert_clusters(connection, clusters, firsts)
        if prompts:
            tables.insert_prompts(connection, prompts, assignments)

    def _claim(
        self,
        connection: tables.Connection,
        claim: Claim,
        purpose: str,
        pick: Callable[[], list[Prompt]],
        mark: Callable[[tables.Connection, Sequence[str]], None] | None = None,
    ) -> list[Prompt]:
        if tables.is_ended(connection, claim.round):
            raise PromptStoreError(f"round {claim.round} has ended and claims nothing more; start a new round")
        earlier = tables.read_claim(connection, claim.round, purpose)
        if earlier is not None:
            return earlier
        chosen = pick()
        if len(chosen) < claim.least:
            return chosen
        with transaction(connection):
            tables.insert_claim(connection, claim.round, purpose, [prompt.id for prompt in chosen])
            if mark is not None:
                mark(connection, [prompt.id for prompt in chosen])
        return chosen

    def _claim_split(
        self,
        connection: tables.Connection,
        claim: Claim,
        split: Split,
        mark: Callable[[tables.Connection, Sequence[str]], None],
    ) -> list[Prompt]:
        return self._claim(connection, claim, split.value, lambda: self._choose(connection, claim, split), mark)

    def _claim_rehearsal(self, connection: tables.Connection, claim: Claim) -> list[Prompt]:
        def pick() -> list[Prompt]:
            limit = max(256, 16 * claim.limit)
            return draw(tables.read_used_candidates(connection, claim.round, limit=limit), patient(claim))

        return self._claim(connection, claim, tables.REHEARSAL, pick)

    def _shadow(self, connection: tables.Connection, limit: int, tenant_share: float, accepts: Accepts) -> list[Prompt]:
        candidates = tables.read_shadow_candidates(connection, page=(0, max(1024, 16 * limit)))
        chosen = choose(candidates, patient(Claim(0, limit, tenant_share, accepts)))
        if chosen:
            with transaction(connection):
                tables.mark_shadowed(connection, [prompt.id for prompt in chosen])
        return in_order_of_arrival(chosen)

    def _return_shadowed(self, connection: tables.Connection, ids: Sequence[str]) -> None:
        with transaction(connection):
            tables.unmark_shadowed(connection, ids)

    def _choose(self, connection: tables.Connection, claim: Claim, split: Split) -> list[Prompt]:
        """Look at each tenant's newest first, and further back only while the claim is not full."""
        claim = patient(claim)
        candidates: list[Candidate] = []
        size = max(1024, 16 * claim.limit)
        while True:
            page = (len(candidates), size)
            found = tables.read_candidates(connection, split, max_attempts=self._max_attempts, page=page)
            candidates += found
            chosen = choose(candidates, claim)
            if len(chosen) == claim.limit or len(found) < size or len(candidates) >= _SCAN_LIMIT:
                return chosen
            size *= 4

    def _release(
        self, connection: tables.Connection, round_id: int, consumed: bool, tried: bool, used: Sequence[str]
    ) -> None:
        if tables.is_ended(connection, round_id):
            return
        with transaction(connection):
            tables.end_round(connection, round_id, consumed=consumed, tried=tried)
            tables.use_up(connection, used)
