"""What the command line does with a data directory whose daemon is stopped."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tao_daemon.app.backends import open_store
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.config import Config
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt
from tao_daemon.intake.importing import read_jsonl


async def import_prompts(config: Config, file: Path) -> dict[str, Any]:
    """Buffer a file of requests; counts, and the lines that were rejected with their codes."""
    with sole_owner(config.daemon.data_dir):
        store = open_store(config, emit=lambda signal: None)
        try:
            return await _import(config, store, file)
        finally:
            await asyncio.to_thread(store.close)


async def buffer_stats(config: Config) -> dict[str, Any]:
    """What the buffer holds, read from its file; needs the daemon stopped."""
    with sole_owner(config.daemon.data_dir):
        store = open_store(config, emit=lambda signal: None)
        try:
            return asdict(await store.stats())
        finally:
            await asyncio.to_thread(store.close)


async def _import(config: Config, store: DuckDBStore, file: Path) -> dict[str, Any]:
    counts = dict.fromkeys(("train", "held_out", "excluded", "duplicates"), 0)
    rejected: list[dict[str, Any]] = []
    lines = read_jsonl(file, max_bytes=config.buffer.max_prompt_bytes, clock=time.time)
    while batch := list(islice(lines, config.kafka.max_batch_records)):
        prompts = tuple(item for item in batch if isinstance(item, Prompt))
        rejected += [asdict(item) for item in batch if not isinstance(item, Prompt)]
        ingested = await asyncio.wrap_future(store.submit(Ingest(prompts, {})))
        for name in counts:
            counts[name] += getattr(ingested, name)
    return {**counts, "rejected": rejected}
