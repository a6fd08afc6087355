"""The buffer of a data directory whose daemon is stopped: filled from a file, looked at, written out."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tao_daemon.app.backends import open_store
from tao_daemon.app.operations import Progress
from tao_daemon.app.operations.erasure_plan import read_plan
from tao_daemon.app.paths import existing_buffer
from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.buffer.exporting import Filter, count_prompts, read_all
from tao_daemon.clients.storage import publishing_file, remove_unfinished_of
from tao_daemon.config import Config
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt
from tao_daemon.intake.importing import export_line, read_jsonl

_PROGRESS_EVERY = 1000


async def import_prompts(config: Config, file: Path, progress: Progress) -> dict[str, Any]:
    """Buffer a file of requests; counts, and the lines that were rejected with their codes."""
    with sole_owner(config.daemon.data_dir):
        store = await asyncio.to_thread(open_store, config, lambda signal: None)
        try:
            return await _import(config, store, file, progress)
        finally:
            await asyncio.to_thread(store.close)


async def buffer_stats(config: Config) -> dict[str, Any]:
    """What the buffer holds, read from its file, as GET /v1/buffer tells it; needs the daemon stopped."""
    existing_buffer(config)
    with sole_owner(config.daemon.data_dir):
        store = await asyncio.to_thread(open_store, config, lambda signal: None)
        try:
            stats, details = await store.stats(), await store.details()
        finally:
            await asyncio.to_thread(store.close)
        unfinished = read_plan(config.daemon.data_dir)
    told = {"stats": asdict(stats), "intake": "stopped", "details": asdict(details)}
    return {**told, "unfinished_erasure": unfinished.erasure} if unfinished else told


def export_to_file(config: Config, target: Path, wanted: Filter, progress: Progress) -> int:
    """Write a new file that only its owner may read; how many prompts. It is there whole or not at all."""
    remove_unfinished_of(target)
    with publishing_file(target, mode=0o600) as file:
        return export_prompts(config, file, wanted, progress)


def export_prompts(config: Config, file: BinaryIO, wanted: Filter, progress: Progress) -> int:
    """One line per prompt, in the order they were buffered; how many. Raises TaoError, OSError."""
    path = existing_buffer(config)
    count = 0
    with sole_owner(config.daemon.data_dir), closing(open_database(path)) as connection:
        total = count_prompts(connection, wanted)
        for count, (prompt, split) in enumerate(read_all(connection, wanted), start=1):
            file.write(export_line(prompt, split))
            if count % _PROGRESS_EVERY == 0:
                progress("exporting", count, total)
    progress("exporting", count, total)
    return count


async def _import(config: Config, store: DuckDBStore, file: Path, progress: Progress) -> dict[str, Any]:
    counts = dict.fromkeys(("train", "held_out", "excluded", "duplicates"), 0)
    rejected: list[dict[str, Any]] = []
    lines = read_jsonl(file, max_bytes=config.buffer.max_prompt_bytes, clock=time.time)
    while batch := list(islice(lines, config.kafka.max_batch_records)):
        prompts = tuple(item for item in batch if isinstance(item, Prompt))
        rejected += [asdict(item) for item in batch if not isinstance(item, Prompt)]
        ingested = await asyncio.wrap_future(store.submit(Ingest(prompts, {})))
        for name in counts:
            counts[name] += getattr(ingested, name)
        progress("importing", sum(counts.values()) + len(rejected), 0)
    return {**counts, "rejected": rejected}
