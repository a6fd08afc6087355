"""Gives refused records another try with the present version and configuration.

They go straight into the buffer, under the identifiers they would have had: sent to the topic again they would be new
records at new offsets, and twice when it is done twice. So the daemon is stopped meanwhile, as for every other writer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tao_daemon.app.backends import open_store
from tao_daemon.app.operations import Progress
from tao_daemon.app.paths import buffer_path
from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.buffer.tables import known_ids
from tao_daemon.config import Config
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.domain.ports import Clock, Ingest
from tao_daemon.domain.prompt import Prompt
from tao_daemon.intake.redrive import decode_letter, read_letters

Put = Callable[[list[Prompt]], Awaitable[dict[str, int]]]
"""Buffers prompts, or counts what buffering would do."""

_SPLITS = ("train", "held_out", "excluded")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters; None does not choose."""

    code: str | None = None
    """Why they were refused."""
    since: float = 0.0
    """Unix second from which on they were refused."""
    limit: int | None = None
    """Prompts to buffer, at most; those that are there already do not count."""


async def redrive(config: Config, wanted: Wanted, clock: Clock, progress: Progress) -> dict[str, Any]:
    """Buffer what can be read by now; counts, and what still fails, by code. Raises TaoError."""
    with sole_owner(config.daemon.data_dir):
        store = await asyncio.to_thread(open_store, config, lambda signal: None)
        try:
            return await _redrive(config, wanted, clock, progress, lambda prompts: _put(store, prompts))
        finally:
            await asyncio.to_thread(store.close)


async def preview_redrive(config: Config, wanted: Wanted, clock: Clock, progress: Progress) -> dict[str, Any]:
    """What `redrive` would do; nothing is changed. Which splits is not known before."""
    with sole_owner(config.daemon.data_dir):
        told = await _redrive(config, wanted, clock, progress, lambda prompts: _foresee(config, prompts))
        return {name: value for name, value in told.items() if name not in _SPLITS}


async def _redrive(config: Config, wanted: Wanted, clock: Clock, progress: Progress, put: Put) -> dict[str, Any]:
    letters = _Letters(config, wanted, clock)
    counts: Counter[str] = Counter()
    while True:
        buffered = counts.total() - counts["duplicates"]
        room = config.kafka.max_batch_records if wanted.limit is None else wanted.limit - buffered
        prompts = await asyncio.to_thread(letters.take, min(room, config.kafka.max_batch_records))
        if not prompts:
            break
        counts.update(await put(prompts))
        progress(f"{letters.read} letters read", counts.total(), 0)
    await asyncio.to_thread(letters.close)
    return {
        "read": letters.read,
        "buffered": counts.total() - counts["duplicates"],
        **{name: counts[name] for name in (*_SPLITS, "duplicates")},
        "still_failing": dict(sorted(letters.failing.items())),
    }


class _Letters:
    """The letters that are wanted, as prompts; counts what still fails on the way."""

    def __init__(self, config: Config, wanted: Wanted, clock: Clock) -> None:
        self.read = 0
        self.failing: Counter[str] = Counter()
        self._letters = read_letters(config.kafka, since=wanted.since)
        self._wanted = wanted
        self._max_bytes = config.buffer.max_prompt_bytes
        self._clock = clock
        self._prompts = self._decoded()

    def take(self, count: int) -> list[Prompt]:
        return list(islice(self._prompts, max(0, count)))

    def close(self) -> None:
        self._letters.close()

    def _decoded(self) -> Iterator[Prompt]:
        for letter in self._letters:
            if self._wanted.code not in (None, letter.origin.code):
                continue
            self.read += 1
            item = decode_letter(letter, max_bytes=self._max_bytes, now=self._clock())
            if isinstance(item, Prompt):
                yield item
            else:
                self.failing[item.code] += 1


async def _put(store: DuckDBStore, prompts: list[Prompt]) -> dict[str, int]:
    ingested = await asyncio.wrap_future(store.submit(Ingest(tuple(prompts), {})))
    return {name: getattr(ingested, name) for name in (*_SPLITS, "duplicates")}


async def _foresee(config: Config, prompts: list[Prompt]) -> dict[str, int]:
    ids = {prompt.id for prompt in prompts}
    path = buffer_path(config)
    if path.exists():
        with closing(open_database(path)) as connection:
            ids -= known_ids(connection, sorted(ids))
    return {"train": len(ids), "duplicates": len(prompts) - len(ids)}
