from __future__ import annotations

import asyncio
import os
import random
import string
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tao_daemon.buffer.copying import compact, copy_buffer
from tao_daemon.buffer.database import open_database, transaction
from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.buffer.erasing import SelectBy, Selector, claiming_rounds, erase, select_ids
from tao_daemon.buffer.exporting import Filter, count_prompts, read_all
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Claim, Ingest, Ingested
from tao_daemon.domain.prompt import Prompt, Source, Split

NEEDLE = "kumquat-zephyr-4711"


def prompt(offset: int, text: str | None = None, *, subject: str = "", tenant: str = "") -> Prompt:
    text = text or "".join(random.Random(offset).choices(string.ascii_lowercase, k=200))
    source = Source("prompts", 0, offset)
    request = {"messages": [{"role": "user", "content": text}]}
    return Prompt(source.prompt_id, request, source, float(offset), tenant, f"c{offset % 3}", subject)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tao.duckdb"


def opened(path: Path, held_out: float = 1e-9) -> DuckDBStore:
    return DuckDBStore(
        path,
        held_out_fraction=held_out,
        similarity=0.7,
        max_attempts=3,
        min_free_disk_mib=0,
        emit=lambda signal: None,
    )


def fill(path: Path, *prompts: Prompt, offset: int = 0) -> Ingested:
    store = opened(path)
    try:
        return store.submit(Ingest(prompts, {("prompts", 0): offset} if offset else {})).result(30)
    finally:
        store.close()


def forget(path: Path, ids: list[str]) -> int:
    connection = open_database(path)
    with transaction(connection):
        count = erase(connection, ids)
    connection.close()
    return count


def found(directory: Path, needle: str) -> list[str]:
    return [file.name for file in directory.rglob("*") if file.is_file() and needle.encode() in file.read_bytes()]


def test_only_a_compacted_file_has_lost_the_bytes(path: Path) -> None:
    secret = prompt(1, f"my word is {NEEDLE} " * 20, subject="ada")
    fill(path, prompt(0), secret, prompt(2), offset=3)
    assert forget(path, [secret.id]) == 1
    assert found(path.parent, NEEDLE) == ["tao.duckdb"]  # what DELETE alone leaves: the reason for the copy
    compact(path)
    assert found(path.parent, NEEDLE) == []
    assert [file.name for file in path.parent.iterdir()] == ["tao.duckdb"]
    store = opened(path)
    assert asyncio.run(store.next_offsets("prompts")) == {0: 3}
    assert asyncio.run(store.stats()).train == 2
    store.close()


def test_what_is_erased_stays_away_whatever_is_read_again(path: Path) -> None:
    secret = prompt(1, subject="ada")
    fill(path, prompt(0), secret)
    forget(path, [secret.id])
    compact(path)
    assert fill(path, secret, prompt(0)).duplicates == 2
    assert forget(path, [secret.id]) == 0


def test_selectors_choose_by_attribute_and_never_by_absence(path: Path) -> None:
    prompts = [prompt(i, subject="ada" if i % 2 else "bob", tenant="t") for i in range(6)]
    fill(path, *prompts)
    connection = open_database(path)
    odd = [each.id for each in prompts[1::2]]
    assert select_ids(connection, Selector(SelectBy.SUBJECT, "ada")) == odd
    assert len(select_ids(connection, Selector(SelectBy.TENANT, "t"))) == 6
    assert select_ids(connection, Selector(SelectBy.CONVERSATION, "c1")) == [prompts[1].id, prompts[4].id]
    assert select_ids(connection, Selector(SelectBy.PROMPT_ID, odd[0])) == odd[:1]
    assert select_ids(connection, Selector(SelectBy.SUBJECT, "eve")) == []
    connection.close()
    with pytest.raises(ValueError, match="subject is empty"):
        Selector(SelectBy.SUBJECT, "")


def test_a_cluster_is_compared_by_its_eldest_heir_and_by_nothing_without_one(path: Path) -> None:
    base = "please summarise the quarterly report of the northern branch for the board meeting in spring"
    first, heir, alone = prompt(0, base), prompt(1, base + " thanks"), prompt(2)
    fill(path, first, heir, alone)
    forget(path, [first.id, alone.id])
    compact(path)
    connection = duckdb.connect(str(path), read_only=True)
    rows = connection.execute("SELECT number, task, first_prompt FROM clusters ORDER BY number").fetchall()
    connection.close()
    assert rows == [(0, "", heir.id), (1, "erased", "")]
    assert asyncio.run(_stats(path)).clusters == 1
    again = prompt(12, alone.user_text)
    fill(path, prompt(10, base + " bye"), again)
    connection = duckdb.connect(str(path), read_only=True)
    clusters = dict(connection.execute("SELECT source_offset, cluster FROM prompts").fetchall())
    connection.close()
    assert clusters == {1: 0, 10: 0, 12: 2}  # the like joins the heir; what was alone starts anew


async def _stats(path: Path):  # type: ignore[no-untyped-def]
    store = opened(path)
    try:
        return await store.stats()
    finally:
        store.close()


def test_claims_lose_the_erased_and_keep_the_rest(path: Path) -> None:
    prompts = [prompt(i) for i in range(4)]
    fill(path, *prompts)
    store = opened(path)
    claimed = asyncio.run(store.claim_training(Claim(7, 3, 1.0, lambda each: True)))
    store.close()
    gone = claimed[1].id
    connection = open_database(path)
    assert claiming_rounds(connection, [gone, "f" * 32]) == [7]
    connection.close()
    forget(path, [gone])
    store = opened(path)
    again = asyncio.run(store.claim_training(Claim(7, 3, 1.0, lambda each: True)))
    store.close()
    assert [each.id for each in again] == [claimed[0].id, claimed[2].id]


def test_a_buffer_of_the_first_schema_is_brought_up(path: Path) -> None:
    fill(path, prompt(0))
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE forgotten")
        connection.execute("UPDATE meta SET value = '1' WHERE name = 'schema'")
    assert fill(path, prompt(0), prompt(1)).duplicates == 1
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchall() == [("2",)]


def test_a_crash_before_the_rename_leaves_the_old_file(path: Path) -> None:
    fill(path, *(prompt(i) for i in range(50)))
    before = path.read_bytes()
    code = f"from pathlib import Path; from tao_daemon.buffer.copying import compact; compact(Path({str(path)!r}))"
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path), "TAO_KILL_AT": "buffer.copied"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == -9
    assert path.read_bytes() == before
    compact(path)
    assert asyncio.run(_stats(path)).train == 50


def test_a_copy_that_cannot_be_written_says_so_and_leaves_nothing(path: Path) -> None:
    fill(path, prompt(0, NEEDLE))
    with pytest.raises(PromptStoreError, match="could not be copied") as caught:
        copy_buffer(path, path.parent / "absent" / "copy.duckdb")
    assert NEEDLE not in str(caught.value)


def test_export_reads_in_order_and_filters(path: Path) -> None:
    prompts = [prompt(i, tenant="a" if i % 2 else "b") for i in range(2500)]
    fill(path, *prompts)
    connection = open_database(path)
    assert [each.id for each, _ in read_all(connection, Filter())] == [each.id for each in prompts]
    some = Filter(tenant="a", since=2001.0, split=Split.TRAIN)
    assert [each.source.offset for each, _ in read_all(connection, some)] == list(range(2001, 2500, 2))
    assert count_prompts(connection, some) == 250
    assert count_prompts(connection, Filter(split=Split.HELD_OUT)) == 0
    connection.close()
