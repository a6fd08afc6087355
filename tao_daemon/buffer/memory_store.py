"""A prompt buffer that keeps everything in memory: for tests of other rooms, under the same contract tests."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from tao_daemon.buffer.clusters import ClusterIndex
from tao_daemon.buffer.ingesting import counted, unseen
from tao_daemon.buffer.lookups import TOP_TENANTS
from tao_daemon.buffer.selection import Candidate, choose, draw, in_order_of_arrival
from tao_daemon.buffer.signatures import fingerprint
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Accepts, BufferDetails, BufferStats, Claim, Ingest, Ingested
from tao_daemon.domain.prompt import Prompt, Split
from tao_daemon.domain.signals import Emit, PromptsBuffered, discard


def _drawn(prompt_id: str, round_id: int) -> tuple[str, str]:
    """The order of a round's draw."""
    return hashlib.md5(f"{prompt_id}/{round_id}".encode(), usedforsecurity=False).hexdigest(), prompt_id


@dataclass(slots=True)
class _Row:
    prompt: Prompt
    split: Split
    cluster: int | None
    state: str = "fresh"
    attempts: int = 0


class MemoryStore:
    """Implements `domain.ports.PromptStore`. Nothing survives the process."""

    def __init__(
        self,
        *,
        held_out_fraction: float = 0.2,
        similarity: float = 0.7,
        max_attempts: int = 3,
        emit: Emit = discard,
        salt: str = "",
    ) -> None:
        self._index = ClusterIndex(similarity=similarity, held_out_fraction=held_out_fraction, salt=salt)
        self._max_attempts = max_attempts
        self._emit = emit
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        self._claims: dict[tuple[int, Split], list[Prompt]] = {}
        self._rehearsals: dict[int, list[Prompt]] = {}
        self._ended: set[int] = set()
        self._burned: set[int | None] = set()

    def submit(self, batch: Ingest) -> Future[Ingested]:
        with self._lock:
            result = self._ingest(batch)
        if batch.prompts:
            self._emit(PromptsBuffered(result.train, result.held_out, result.excluded, result.duplicates))
        done: Future[Ingested] = Future()
        done.set_result(result)
        return done

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        with self._lock:
            return {partition: offset for (name, partition), offset in self._offsets.items() if name == topic}

    async def stats(self) -> BufferStats:
        with self._lock:
            splits = [row.split for row in self._rows.values()]
            return BufferStats(
                train=splits.count(Split.TRAIN),
                train_available=len(self._available(Split.TRAIN)),
                held_out=splits.count(Split.HELD_OUT),
                held_out_available=len(self._available(Split.HELD_OUT)),
                excluded=splits.count(Split.EXCLUDED),
                clusters=len(self._index),
            )

    async def details(self) -> BufferDetails:
        with self._lock:
            rows = list(self._rows.values())
            tenants = Counter(row.prompt.tenant for row in rows)
            arrivals = [row.prompt.received_at for row in rows]
            return BufferDetails(
                tenants=tuple(sorted(tenants.items(), key=lambda item: (-item[1], item[0]))[:TOP_TENANTS]),
                tenant_count=len(tenants),
                oldest=min(arrivals, default=None),
                newest=max(arrivals, default=None),
                claimed=sum(row.state == "claimed" for row in rows),
                exhausted=sum(
                    row.split is Split.TRAIN and row.state == "fresh" and row.attempts >= self._max_attempts
                    for row in rows
                ),
                file_bytes=0,
            )

    async def read(self, ids: Sequence[str]) -> Mapping[str, Prompt]:
        with self._lock:
            return {id: self._rows[id].prompt for id in ids if id in self._rows}

    async def claimable(self, split: Split, claim: Claim) -> int:
        with self._lock:
            return len(choose(self._available(split), claim))

    async def claim_training(self, claim: Claim) -> Sequence[Prompt]:
        with self._lock:
            chosen = self._claim(claim, Split.TRAIN)
            for prompt in self._claims.get((claim.round, Split.TRAIN), ()):
                self._rows[prompt.id].state = "claimed"
            return chosen

    async def claim_held_out(self, claim: Claim) -> Sequence[Prompt]:
        with self._lock:
            chosen = self._claim(claim, Split.HELD_OUT)
            claimed = self._claims.get((claim.round, Split.HELD_OUT), ())
            self._burned |= {self._rows[prompt.id].cluster for prompt in claimed}
            return chosen

    async def claim_rehearsal(self, claim: Claim) -> Sequence[Prompt]:
        with self._lock:
            if claim.round in self._ended:
                raise PromptStoreError(f"round {claim.round} has ended and claims nothing more; start a new round")
            if claim.round not in self._rehearsals:
                used = [
                    Candidate(row.prompt, row.cluster)
                    for row in self._rows.values()
                    if row.split is Split.TRAIN and row.state == "used" and row.cluster is not None
                ]
                drawn = sorted(used, key=lambda each: _drawn(each.prompt.id, claim.round))
                self._rehearsals[claim.round] = draw(drawn, claim)
            return self._rehearsals[claim.round]

    async def claim_shadow(self, limit: int, tenant_share: float, accepts: Accepts) -> Sequence[Prompt]:
        with self._lock:
            touched = {row.cluster for row in self._rows.values() if row.state != "fresh" or row.attempts}
            untouched = [each for each in self._available(Split.TRAIN) if each.cluster not in touched]
            chosen = choose(untouched, Claim(0, limit, tenant_share, accepts))
            for prompt in chosen:
                self._rows[prompt.id].state = "shadowed"
            return in_order_of_arrival(chosen)

    async def return_shadowed(self, ids: Sequence[str]) -> None:
        with self._lock:
            for row in (self._rows[id] for id in ids if id in self._rows):
                if row.state == "shadowed":
                    row.state = "fresh"

    async def release(self, round_id: int, *, consumed: bool, tried: bool = True, carried: Sequence[str] = ()) -> None:
        with self._lock:
            if round_id in self._ended:
                return
            self._ended.add(round_id)
            for prompt in self._claims.get((round_id, Split.TRAIN), ()):
                row = self._rows[prompt.id]
                row.state = "used" if consumed else "fresh"
                row.attempts += tried and not consumed
            for row in (self._rows[id] for id in carried if consumed and id in self._rows):
                if row.split is Split.TRAIN and row.state == "fresh":
                    row.state = "used"

    def close(self) -> None:
        """Nothing to give back."""

    def _ingest(self, batch: Ingest) -> Ingested:
        prompts = unseen(batch.prompts, self._rows.keys())
        assignments = self._index.assign([fingerprint(prompt) for prompt in prompts])
        for prompt, assignment in zip(prompts, assignments, strict=True):
            self._rows[prompt.id] = _Row(prompt, assignment.split, assignment.cluster)
        for place, offset in batch.next_offsets.items():
            self._offsets[place] = max(offset, self._offsets.get(place, 0))
        return counted(assignments, duplicates=len(batch.prompts) - len(prompts))

    def _claim(self, claim: Claim, split: Split) -> list[Prompt]:
        if claim.round in self._ended:
            raise PromptStoreError(f"round {claim.round} has ended and claims nothing more; start a new round")
        key = (claim.round, split)
        if key not in self._claims:
            chosen = choose(self._available(split), claim)
            if len(chosen) < claim.least:
                return chosen
            self._claims[key] = chosen
        return self._claims[key]

    def _available(self, split: Split) -> list[Candidate]:
        return [
            Candidate(row.prompt, row.cluster, row.attempts)
            for row in self._rows.values()
            if row.split is split
            and row.state == "fresh"
            and row.attempts < self._max_attempts
            and row.cluster is not None
            and row.cluster not in self._burned
        ]
