"""What the buffer tells: every commit's length, the room it takes and has, and each kind of failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tao_daemon.buffer.disk import MIB
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import BufferFailed, BufferMeasured, BufferWritten, PromptsBuffered, Signal


def opened(path: Path, heard: list[Signal], **changes: Any) -> DuckDBStore:
    options = {"held_out_fraction": 0.3, "similarity": 0.7, "max_attempts": 3, "min_free_disk_mib": 1, "salt": "s"}
    return DuckDBStore(path, emit=heard.append, **{**options, **changes})


def batch(*texts: str) -> Ingest:
    sources = [Source("prompts", 0, offset) for offset in range(len(texts))]
    requests = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    prompts = tuple(Prompt(s.prompt_id, r, s, 1.0) for s, r in zip(sources, requests, strict=True))
    return Ingest(prompts, {("prompts", 0): len(texts)})


async def test_a_commit_and_a_look_at_the_disk(tmp_path: Path) -> None:
    heard: list[Signal] = []
    store = opened(tmp_path / "tao.duckdb", heard)
    store.submit(batch("a river in spring", "an engine without oil")).result(30)
    written, buffered = heard
    assert isinstance(written, BufferWritten)
    assert 0.0 < written.seconds < 30.0
    assert isinstance(buffered, PromptsBuffered)
    await store.stats()
    measured = heard[-1]
    assert isinstance(measured, BufferMeasured)
    files = [tmp_path / "tao.duckdb", tmp_path / "tao.duckdb.wal"]
    assert measured.file_bytes == sum(file.stat().st_size for file in files if file.exists())
    assert measured.free_bytes > MIB
    assert measured.floor_bytes == MIB
    store.close()


def test_too_little_room_is_told_as_such(tmp_path: Path) -> None:
    heard: list[Signal] = []
    store = opened(tmp_path / "tao.duckdb", heard, min_free_disk_mib=2**40)
    with pytest.raises(PromptStoreError, match="min_free_disk_mib"):
        store.submit(batch("a river in spring")).result(30)
    assert heard == [BufferFailed("disk_floor")]
    store.close()
