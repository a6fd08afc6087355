"""A process that ingests until it kills itself at a named point, or is killed: `dying_intake.py JSON`.

The buffer's unique key is made useless (every run gives every prompt a fresh random identifier), so that only the
offsets in the same transaction stand between a record and being buffered twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import uuid
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.config import Kafka
from tao_daemon.domain.ports import Ingest, Ingested
from tao_daemon.domain.signals import PromptsBuffered, Signal
from tao_daemon.intake import kafka_source

POINTS = (
    "before_dead_letters",
    "after_dead_letters",
    "before_submit",
    "after_submit",
    "INSERT INTO clusters",
    "INSERT INTO prompts",
    "INSERT INTO offsets",
    "COMMIT",
    "after_commit",
    "after_group_commit",
    "at_random",
)


class Fuse:
    """Kills the process the n-th time that its point is reached."""

    def __init__(self, point: str, passes: int) -> None:
        self._point = point
        self._left = passes

    def __call__(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Unkeyed:
    """The real store, but no prompt has the identifier that it had in an earlier run."""

    def __init__(self, store: DuckDBStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def submit(self, batch: Ingest) -> Future[Ingested]:
        self._fuse("before_submit")
        fresh = tuple(replace(prompt, id=uuid.uuid4().hex) for prompt in batch.prompts)
        future = self._store.submit(replace(batch, prompts=fresh))
        self._fuse("after_submit")
        return future

    async def next_offsets(self, topic: str) -> Any:
        return await self._store.next_offsets(topic)


class Fused:
    """The real connection, with a fuse before every statement."""

    def __init__(self, connection: Any, fuse: Fuse) -> None:
        self._connection = connection
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: str, *args: Any) -> Any:
        self._fuse(" ".join(query.split()[:3]))
        return self._connection.execute(query, *args)


def main() -> None:
    options = json.loads(sys.argv[1])
    fuse = Fuse(options["point"], options["passes"])

    def emit(seen: Signal) -> None:
        if isinstance(seen, PromptsBuffered):
            fuse("after_commit")

    class Session(kafka_source.KafkaSession):
        def bury(self, letters: Any) -> None:
            if letters:
                fuse("before_dead_letters")
            super().bury(letters)
            if letters:
                fuse("after_dead_letters")

        def committed(self, next_offsets: Any) -> None:
            super().committed(next_offsets)
            fuse("after_group_commit")

    kafka_source.KafkaSession = Session  # type: ignore[misc]
    store = DuckDBStore(
        Path(options["path"]),
        held_out_fraction=0.2,
        similarity=0.7,
        max_attempts=3,
        min_free_disk_mib=0,
        emit=emit,
    )
    store._connection = Fused(store._connection, fuse)  # type: ignore[assignment]
    kafka = Kafka(
        bootstrap_servers=(options["bootstrap"],),
        topic=options["topic"],
        dead_letter_topic=options["topic"] + ".dead",
        max_batch_records=40,
        max_wait_seconds=0.02,
    )
    source = kafka_source.KafkaSource(kafka, Unkeyed(store, fuse), max_prompt_bytes=4096, emit=emit, clock=time.time)
    source.start()
    if options["point"] == "at_random":
        time.sleep(random.Random(options["passes"]).uniform(0.0, 0.4))
        os.kill(os.getpid(), signal.SIGKILL)
    source.finished.result(60)


if __name__ == "__main__":
    main()
