"""PROMISES 1, 2 and 4: every accepted record exactly once, every other in the dead-letter topic, through kill -9."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import signal
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.domain.signals import discard

CHILD = Path(__file__).with_name("dying_intake.py")
RECORDS_PER_KILL = 120


def points() -> tuple[str, ...]:
    spec = importlib.util.spec_from_file_location("dying_intake", CHILD)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module.POINTS)


@pytest.mark.parametrize("kills", [22, pytest.param(220, marks=[pytest.mark.chaos, pytest.mark.timeout(1800)])])
def test_exactly_once_through_kills(
    broker: Any, make_source: Callable[..., Any], topic: str, wait: Any, tmp_path: Path, kills: int
) -> None:
    total = kills * RECORDS_PER_KILL
    bad = set(range(7, total, 31))
    broker.send(topic, [b"bad" if n in bad else {"prompt": f"{n} {_letters(n)}"} for n in range(total)])
    path = tmp_path / "tao.duckdb"
    reached: Counter[str] = Counter()
    for run in range(kills):
        point = points()[run % len(points())]
        options = {"path": str(path), "bootstrap": broker.bootstrap, "topic": topic, "point": point, "passes": run % 3}
        done = subprocess.run(
            [sys.executable, str(CHILD), json.dumps(options)],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
        reached[point] += 1
    assert set(reached) == set(points())
    before = _buffered(path)
    assert before, "the kills came too early to prove anything"
    assert len(before) < total - len(bad), "the kills came too late to prove anything"
    _finish(path, make_source, wait, total)
    rows = _buffered(path)
    assert set(rows.values()) == {1}, "a record was buffered twice"
    assert len(rows) == total - len(bad), "records in = buffered + dead-lettered"
    assert before.items() <= rows.items(), "what was committed is lost"
    numbers = _numbers(path)
    assert numbers == set(range(total)) - bad
    keys = {letter.key for letter in broker.read(f"{topic}.dead", len(bad))}
    deadline = time.monotonic() + 30
    seen = len(bad)
    while len(keys) < len(bad) and time.monotonic() < deadline:
        seen += len(bad)  # repeats are allowed: read further
        keys = {letter.key for letter in broker.read(f"{topic}.dead", seen)}
    assert len(keys) == len(bad)


def _letters(seed: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=40))


def _finish(path: Path, make_source: Callable[..., Any], wait: Any, total: int) -> None:
    """An undisturbed run to the end."""
    store = DuckDBStore(path, held_out_fraction=0.2, similarity=0.7, max_attempts=3, min_free_disk_mib=0, emit=discard)
    source = make_source(store)
    wait(lambda: _read(store, source) == total, f"all {total} records", 120)
    assert source.stop(20)
    store.close()


def _read(store: DuckDBStore, source: Any) -> int:
    return sum(asyncio.run(store.next_offsets(source._kafka.topic)).values())


def _buffered(path: Path) -> Counter[tuple[str, int, int]]:
    with duckdb.connect(str(path)) as connection:
        rows = connection.execute("SELECT source_topic, source_partition, source_offset FROM prompts").fetchall()
    return Counter(rows)


def _numbers(path: Path) -> set[int]:
    with duckdb.connect(str(path)) as connection:
        return {
            int(json.loads(row[0])["prompt"].split()[0])
            for row in connection.execute("SELECT request FROM prompts").fetchall()
        }
