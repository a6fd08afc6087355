"""The real file: restarts, other processes, other versions, failing disks."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tao_daemon.buffer import tables
from tao_daemon.buffer.disk import MIB, DiskReserve
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.domain.errors import InstanceError, PromptStoreError
from tao_daemon.domain.ports import Claim, Ingest, Ingested
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import discard

NEEDLE = "correct horse battery staple"


def prompt(offset: int, text: str | None = None, size: int = 60) -> Prompt:
    text = text or "".join(random.Random(offset).choices(string.ascii_lowercase, k=size))
    source = Source("prompts", 0, offset)
    return Prompt(source.prompt_id, {"messages": [{"role": "user", "content": text}]}, source, float(offset))


def opened(path: Path, **changes: Any) -> DuckDBStore:
    options: dict[str, Any] = {
        "held_out_fraction": 0.3,
        "similarity": 0.7,
        "max_attempts": 3,
        "min_free_disk_mib": 0,
        "emit": discard,
        "salt": "s",
    }
    return DuckDBStore(path, **{**options, **changes})


def put(store: DuckDBStore, *prompts: Prompt, offset: int | None = None) -> Ingested:
    offsets = {} if offset is None else {("prompts", 0): offset}
    return store.submit(Ingest(prompts, offsets)).result(60)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tao.duckdb"


def test_everything_survives_a_restart(path: Path) -> None:
    claim = Claim(1, 5, 1.0, lambda each: True)
    store = opened(path)
    put(store, *(prompt(i) for i in range(60)), offset=60)
    claimed = asyncio.run(store.claim_training(claim))
    gated = asyncio.run(store.claim_held_out(claim))
    stats = asyncio.run(store.stats())
    store.close()
    store = opened(path)
    assert asyncio.run(store.stats()) == stats
    assert asyncio.run(store.next_offsets("prompts")) == {0: 60}
    assert asyncio.run(store.claim_training(claim)) == claimed
    assert asyncio.run(store.claim_held_out(claim)) == gated
    again = put(store, *(prompt(100 + i, str(prompt(i).user_text)) for i in range(60)))
    assert (again.train, again.held_out) == (stats.train, stats.held_out), "copies join the clusters of before"
    assert asyncio.run(store.stats()).clusters == 60
    store.close()


def test_a_second_process_is_refused_with_the_file_and_the_holder(path: Path) -> None:
    code = f"""
import sys
from tao_daemon.buffer.duckdb_store import DuckDBStore
store = DuckDBStore(__import__("pathlib").Path({str(path)!r}), held_out_fraction=0.2, similarity=0.7,
                    max_attempts=3, min_free_disk_mib=0, emit=lambda signal: None)
print("open", flush=True)
sys.stdin.read()
"""
    env = {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, env=env) as other:
        assert other.stdout
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(InstanceError, match=rf"tao\.duckdb is open in another process \(process {other.pid}\)"):
            opened(path)
        assert other.stdin
        other.stdin.close()
    opened(path).close()


def test_a_newer_schema_is_refused(path: Path) -> None:
    opened(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '3' WHERE name = 'schema'")
    with pytest.raises(PromptStoreError, match="has schema 3, this version knows 2; start the newer"):
        opened(path)


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(PromptStoreError, match=r"tao\.duckdb cannot be opened: .*not a valid DuckDB"):
        opened(path)
    with pytest.raises(PromptStoreError, match="cannot be opened"):
        opened(path.parent / "absent" / "tao.duckdb")


def test_a_failed_transaction_leaves_nothing_and_the_retry_everything(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(path)
    put(store, prompt(0), prompt(1), offset=2)
    working = tables.advance_offsets

    def failing(connection: Any, offsets: Any) -> None:
        monkeypatch.setattr(tables, "advance_offsets", working)
        raise duckdb.ConversionException(f"Could not convert string '{NEEDLE}'")

    monkeypatch.setattr(tables, "advance_offsets", failing)
    with pytest.raises(PromptStoreError) as caught:
        put(store, prompt(2, NEEDLE), prompt(3), offset=4)
    assert NEEDLE not in str(caught.value) + caplog.text
    assert asyncio.run(store.next_offsets("prompts")) == {0: 2}
    assert asyncio.run(store.stats()).clusters == 2
    done = put(store, prompt(2, NEEDLE), prompt(3), offset=4)
    assert done.train + done.held_out == 2
    assert asyncio.run(store.next_offsets("prompts")) == {0: 4}
    store.close()
    assert rows(path, "SELECT number FROM clusters ORDER BY number") == [(0,), (1,), (2,), (3,)]


def test_signatures_of_another_algorithm_are_made_again(path: Path) -> None:
    store = opened(path)
    put(store, *(prompt(i) for i in range(20)))
    stats = asyncio.run(store.stats())
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = 'older' WHERE name = 'signatures'")
        connection.execute("UPDATE clusters SET signature = ?", [bytes(512)])
    store = opened(path)
    again = put(store, *(prompt(100 + i, str(prompt(i).user_text)) for i in range(20)))
    assert (again.train, again.held_out, again.excluded) == (stats.train, stats.held_out, 0)
    assert asyncio.run(store.stats()).clusters == 20
    store.close()


def test_a_closed_buffer_refuses_and_closing_twice_is_fine(path: Path) -> None:
    store = opened(path)
    store.close()
    store.close()
    with pytest.raises(PromptStoreError, match="is closed"):
        put(store, prompt(1))


def test_below_the_floor_nothing_is_ingested_and_reading_goes_on(path: Path) -> None:
    store = opened(path, min_free_disk_mib=10**9)
    with pytest.raises(PromptStoreError, match=r"below buffer\.min_free_disk_mib \(1000000000\)"):
        put(store, prompt(1), offset=2)
    assert asyncio.run(store.next_offsets("prompts")) == {}
    assert asyncio.run(store.stats()).train == 0
    store.close()


def test_the_ballast_is_kept_given_back_and_restored(tmp_path: Path) -> None:
    free = [100 * MIB]
    reserve = DiskReserve(tmp_path / "x", floor_mib=10, free=lambda directory: free[0], ballast=MIB)
    ballast = tmp_path / "x.ballast"
    reserve.require()
    assert ballast.stat().st_blocks * 512 >= MIB
    free[0] = 9 * MIB
    with pytest.raises(PromptStoreError, match="9 MiB free"):
        reserve.require()
    reserve.release()
    assert ballast.exists(), "there is still room: the failure was another one"
    free[0] = 1000
    reserve.release()
    assert not ballast.exists()
    free[0] = 100 * MIB
    reserve.require()
    assert ballast.exists()


def test_a_write_that_the_system_refuses_is_survived(path: Path) -> None:
    """A limit on file size fails DuckDB's own writes, as a full disk does, and then the limit is lifted."""
    code = f"""
import resource, sys, asyncio
sys.path[:0] = {sys.path!r}
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_duckdb_store import *
store = opened(Path({str(path)!r}))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, hard))
acknowledged, refused = 0, 0
for start in range(0, 1200, 100):
    try:
        put(store, *(prompt(i, size=4000) for i in range(start, start + 100)), offset=start + 100)
        acknowledged = start + 100
    except PromptStoreError as error:
        refused += 1
        if refused == 2:
            break
assert refused == 2, refused
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert asyncio.run(store.next_offsets("prompts")) == {{0: acknowledged}}
put(store, *(prompt(i, size=4000) for i in range(acknowledged, 1200)), offset=1200)
store.close()
print(acknowledged)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 1200
    assert rows(path, "SELECT count(*), count(DISTINCT source_offset) FROM prompts") == [(1200, 1200)]


@pytest.mark.chaos
def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    """A 48 MiB tmpfs in a mount namespace of its own: filled by others, then filled by us, then enlarged."""
    unshare = shutil.which("unshare")
    assert unshare, "install util-linux"
    code = f"""
import subprocess, sys, asyncio
sys.path[:0] = {sys.path!r}
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_duckdb_store import *
disk = Path({str(tmp_path)!r})
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], check=True)
store = opened(disk / "tao.duckdb", min_free_disk_mib=2)
ballast, filler = disk / "tao.duckdb.ballast", disk / "filler"
def send(start, count=100):
    put(store, *(prompt(i, size=8000) for i in range(start, start + count)), offset=start + count)
    return start + count
at = send(0)
assert ballast.exists()
filler.write_bytes(bytes(shutil.disk_usage(disk).free - MIB))
try:
    send(at); raise SystemExit("ingested below the floor")
except PromptStoreError as error:
    assert "min_free_disk_mib" in str(error), error
filler.write_bytes(bytes(MIB))
at = send(at)
filler.write_bytes(bytes(shutil.disk_usage(disk).free + MIB - 3 * MIB))
try:
    send(at, 2000); raise SystemExit("16 MB fitted into 3")
except PromptStoreError as error:
    print(error)
assert asyncio.run(store.next_offsets("prompts")) == {{0: at}}
subprocess.run(["mount", "-o", "remount,size=128m", disk], check=True)
at = send(at, 2000)
assert ballast.exists()
assert asyncio.run(store.stats()).train + asyncio.run(store.stats()).held_out == at
store.close()
"""
    done = subprocess.run(
        [unshare, "--map-root-user", "--mount", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
