"""Queries on a fixture, in a real worker process: grades, and what no query can do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.scoring.graders import one_by_one
from tao_daemon.scoring.sql_verifier import MAX_CHARACTERS, WORKER, SqlVerifier
from tao_daemon.scoring.verifier import Failure

FIXTURE = """
CREATE TABLE Orders AS SELECT i AS id, 'x' || i AS name, DATE '2026-01-01' + i::INTEGER AS day FROM range(100) r(i);
CREATE VIEW recent AS SELECT * FROM orders WHERE id > 90;
CREATE SCHEMA more;
CREATE TABLE more.extra AS SELECT 1 AS z;
CREATE SEQUENCE ids;
CREATE VIEW fixed AS VALUES (1), (2);
"""
PROMPT = Prompt("p", {"prompt": "all orders?"}, Source("t", 0, 0), received_at=0.0)


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "fixture.sql"
    path.write_text(FIXTURE)
    return path


@pytest.fixture(scope="module")
def verifier(fixture: Path) -> Iterator[SqlVerifier]:
    verifier = SqlVerifier(fixture, "code", timeout_seconds=30.0)
    yield verifier
    verifier.close()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM orders",
        "select name from ORDERS where id = 5;",
        "FROM orders LIMIT 1",
        "-- why\nSELECT id FROM orders -- because\n; -- done",
        "/* a */ SELECT 'a;' FROM orders /* ; */ ;;",
        "WITH o AS (SELECT * FROM orders) SELECT count(*) FROM o",
        "SELECT * FROM recent ORDER BY day DESC",
        "SELECT z FROM more.extra",
        "SELECT a.id, b.id, a.id FROM orders a JOIN orders b USING (id)",
        "(SELECT id FROM orders) UNION ALL (SELECT 1)",
        "SELECT now(), {'a': [name]}, NULL, uuid() FROM orders",
        "SELECT (SELECT max(id) FROM orders)",
        "SELECT * FROM orders NATURAL JOIN recent",
        "WITH orders AS (SELECT * FROM orders) FROM orders",
        "WITH orders AS (SELECT 1) FROM main.orders",
        "WITH c AS (SELECT * FROM fixed) FROM c",
        "UNPIVOT (SELECT id, id * 2 AS twice FROM orders) ON id, twice INTO NAME n VALUE v",
        "UNPIVOT orders ON id INTO NAME n VALUE v",
        "PIVOT orders ON id IN (1, 2) USING count(*)",
        f"SELECT id FROM orders WHERE id < {'1+' * 900}1",
        "SELECT 'é ✓' FROM orders; -- é",
        "Here it is:\n```sql\nSELECT id FROM orders\n```\nEnjoy!",
    ],
)
def test_a_query_that_finds_something_in_the_fixture_scores_1(verifier: SqlVerifier, query: str) -> None:
    assert verifier.check(query) == 1.0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "VALUES (1)",
        "SELECT 1 AS orders",
        'SELECT \'"table_name":"orders"\'',
        "SELECT * FROM orders WHERE false",
        "SHOW TABLES",
        "SELECT * FROM range(5)",
        "SELECT * FROM duckdb_settings()",
        "DESCRIBE orders",
        "SHOW orders",
        "SUMMARIZE orders",
        "SELECT * FROM (DESCRIBE SELECT * FROM orders)",
        "WITH orders AS (SELECT 1) FROM orders",
        "WITH fixed AS (SELECT 1) FROM fixed",
        "SELECT * FROM (WITH Orders AS (SELECT 1) FROM oRDERS)",
        "WITH RECURSIVE orders AS (SELECT 1 UNION ALL FROM orders) FROM orders LIMIT 3",
    ],
)
def test_a_query_that_runs_and_finds_nothing_there_scores_half(verifier: SqlVerifier, query: str) -> None:
    assert verifier.check(query) == 0.5


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nothing FROM orders",
        "SELECT * FROM missing",
        "SELECT name::INTEGER FROM orders",
        "SELECT ? FROM orders",
        "SELECT no_such(id) FROM orders",
    ],
)
def test_a_query_that_parses_and_fails_scores_a_fifth(verifier: SqlVerifier, query: str) -> None:
    assert verifier.check(query) == 0.2


@pytest.mark.parametrize(
    "query",
    [
        "",
        "I cannot help.",
        "SELEC 1",
        "SELECT 1) UNION (SELECT 2",
        "SELECT (",
        "-- nothing",
        ";",
        "SELECT '\ud800'",
        "SELECT 1" + " " * MAX_CHARACTERS + "x",
    ],
)
def test_what_is_no_query_scores_0(verifier: SqlVerifier, query: str) -> None:
    assert verifier.check(query) == 0.0


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE orders",
        "DELETE FROM orders",
        "INSERT INTO orders (id) VALUES (1)",
        "UPDATE orders SET id = 0",
        "SELECT 1 FROM orders; DROP TABLE orders",
        "CREATE TABLE stolen AS SELECT * FROM orders",
        "COPY orders TO '{folder}/out.csv'",
        "COPY orders FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA enable_external_access=true",
        "SET enable_external_access = true",
        "SET threads = 64",
        "RESET lock_configuration",
        "CALL pragma_version()",
        "EXPLAIN ANALYZE SELECT 1",
        "BEGIN",
        "COMMIT",
        "PREPARE p AS SELECT 1",
        "USE more",
        "CHECKPOINT",
        "PIVOT orders ON name USING sum(id)",
    ],
)
def test_any_other_statement_scores_0_without_effect(verifier: SqlVerifier, tmp_path: Path, query: str) -> None:
    assert verifier.check(query.replace("{folder}", str(tmp_path))) == 0.0
    assert list(tmp_path.iterdir()) == []
    assert_untouched(verifier)


@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
        "WITH new AS (INSERT INTO orders (id) VALUES (1) RETURNING *) SELECT * FROM new, orders",
        "SELECT nextval('ids') FROM orders",
        "SELECT * FROM query('DROP TABLE orders')",
        "SELECT * FROM read_csv('/etc/passwd'), orders",
        "SELECT * FROM '/etc/passwd', orders",
        "SELECT * FROM read_text('/etc/passwd'), orders",
        "SELECT * FROM read_blob('/etc/passwd'), orders",
        "SELECT * FROM glob('/etc/*'), orders",
        "SELECT * FROM sniff_csv('/etc/passwd'), orders",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x'), orders",
        "SELECT getenv('HOME') FROM orders",
        "SELECT * FROM enable_logging(), orders",
        "SELECT * FROM database, orders",
        "SELECT * FROM SETTINGS, orders",
        "SELECT 1 FROM orders) AS a, (SELECT 2",
    ],
)
def test_a_select_with_other_intentions_does_not_run(verifier: SqlVerifier, query: str) -> None:
    score = verifier.check(query)
    assert isinstance(score, float)
    assert score <= 0.2
    assert_untouched(verifier)


def assert_untouched(verifier: SqlVerifier) -> None:
    """100 rows, no number drawn: the division fails, and the grade falls, when it is otherwise."""
    assert verifier.check("SELECT 1 FROM orders HAVING count(*) = 100") == 1.0
    assert verifier.check("SELECT 1 FROM duckdb_sequences(), more.extra WHERE last_value IS NULL") == 1.0
    assert verifier.check("SELECT 1 FROM duckdb_tables(), more.extra HAVING count(*) = 2") == 1.0


def test_a_query_that_never_ends_is_a_timeout_and_the_next_one_runs(fixture: Path) -> None:
    verifier = SqlVerifier(fixture, "code", timeout_seconds=0.3)
    started = time.monotonic()
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    assert verifier.check(endless) is Failure.TIMEOUT
    assert time.monotonic() - started < 10
    verifier.close()
    assert SqlVerifier(fixture, "code", timeout_seconds=10.0).check("FROM orders") == 1.0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT repeat('x', 4000000000) FROM orders",
        "SELECT list_sum(range(1000000000)) FROM orders",
        "SELECT string_agg(repeat('x', 10000000), '') FROM range(100)",
        "SELECT array_agg(random()) FROM range(200000000)",
    ],
)
def test_a_query_that_takes_all_memory_is_a_failure_and_the_next_one_runs(verifier: SqlVerifier, query: str) -> None:
    assert isinstance(verifier.check(query), Failure)
    assert verifier.check("FROM orders") == 1.0


def test_a_large_result_is_not_fetched(verifier: SqlVerifier) -> None:
    assert verifier.check("SELECT repeat(name, 100000) FROM orders") == 1.0
    assert verifier.check("SELECT o.id, i FROM orders o, range(10000000000) r(i)") == 1.0


def test_a_worker_that_was_killed_is_a_failure_and_replaced(fixture: Path) -> None:
    verifier = SqlVerifier(fixture, "code", timeout_seconds=30.0)
    assert verifier._process is not None
    os.kill(verifier._process._child.pid, signal.SIGKILL)
    assert verifier.check("FROM orders") is Failure.ERROR
    assert verifier.check("FROM orders") == 1.0
    verifier.close()


@pytest.mark.timeout(60)
def test_a_worker_that_is_stopped_and_reads_nothing_is_a_timeout(fixture: Path) -> None:
    """Though the query does not fit into its pipe."""
    verifier = SqlVerifier(fixture, "code", timeout_seconds=0.5)
    assert verifier._process is not None
    os.kill(verifier._process._child.pid, signal.SIGSTOP)
    assert verifier.check(f"SELECT '{MAX_CHARACTERS // 2 * '😀'}' FROM orders") is Failure.TIMEOUT
    assert verifier.check("FROM orders") == 1.0
    verifier.close()


def test_the_worker_ends_with_its_verifier(fixture: Path) -> None:
    for end in (SqlVerifier.close, lambda verifier: None):
        verifier = SqlVerifier(fixture, "code", timeout_seconds=30.0)
        assert verifier._process is not None
        child = verifier._process._child
        assert child.poll() is None
        end(verifier)
        del verifier
        assert child.poll() is not None


def test_a_worker_whose_verifier_died_ends_by_itself_in_the_middle_of_a_query(fixture: Path) -> None:
    with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        endless = "SELECT count(*) FROM range(100000000000000)"
        for task in ({"fixture": FIXTURE, "seconds": 30.0}, {"query": endless, "seconds": 0.1}):
            child.stdin.write(json.dumps(task).encode() + b"\n")
        child.stdin.close()
        assert child.wait(30) == -signal.SIGALRM


def test_after_close_nothing_starts(fixture: Path) -> None:
    verifier = SqlVerifier(fixture, "code", timeout_seconds=30.0)
    verifier.close()
    verifier.close()
    assert verifier.check("FROM orders") is Failure.ERROR
    assert verifier._process is None


ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"


def test_closing_ends_what_runs_and_what_waits_at_once(fixture: Path) -> None:
    verifier = SqlVerifier(fixture, "code", timeout_seconds=60.0)
    with ThreadPoolExecutor(6) as threads:
        checks = [threads.submit(verifier.check, ENDLESS) for _ in range(6)]
        wait(checks, timeout=0.5)
        assert not any(check.done() for check in checks)
        started = time.monotonic()
        verifier.close()
        assert [check.result(timeout=10) for check in checks] == [Failure.ERROR] * 6
        assert time.monotonic() - started < 5
    assert verifier._process is None


def test_closing_waits_for_no_fixture(fixture: Path) -> None:
    """The worker is one that never gets ready."""
    verifier = SqlVerifier(fixture, "code", timeout_seconds=60.0)
    verifier._fixture = f"CREATE TABLE never AS {ENDLESS}"
    assert verifier._process is not None
    os.kill(verifier._process._child.pid, signal.SIGKILL)
    assert verifier.check("FROM orders") is Failure.ERROR
    with ThreadPoolExecutor(1) as threads:
        check = threads.submit(verifier.check, "FROM orders")
        wait([check], timeout=0.5)
        assert not check.done()
        started = time.monotonic()
        verifier.close()
        assert check.result(timeout=10) is Failure.ERROR
        assert time.monotonic() - started < 5


async def test_slow_queries_leave_the_threads_that_all_share_alone(fixture: Path) -> None:
    verifier = SqlVerifier(fixture, "code", timeout_seconds=60.0)
    grader = one_by_one(verifier, verifier.close)
    assert not grader.is_free
    checks = [asyncio.create_task(grader.grade(PROMPT, [ENDLESS, ENDLESS])) for _ in range(40)]
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await asyncio.to_thread(int)
    assert time.monotonic() - started < 5
    await grader.close()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*checks) == [[Failure.ERROR] * 2] * 40
    assert await grader.grade(PROMPT, ["FROM orders"]) == [Failure.ERROR]
    assert verifier._process is None
    await grader.close()


def test_several_threads_may_ask_at_once(verifier: SqlVerifier) -> None:
    queries = ["FROM orders", "SELECT 1", "SELECT x FROM orders", "no"] * 25
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(verifier.check, queries)) == [1.0, 0.5, 0.2, 0.0] * 25


def test_an_answer_has_only_its_extractors_query(fixture: Path) -> None:
    verifier = SqlVerifier(fixture, "regex:<sql>(.*)</sql>", timeout_seconds=30.0)
    assert verifier.check("So <sql>FROM orders</sql>") == 1.0
    assert verifier.check("FROM orders") == 0.0
    verifier.close()
    hostile = SqlVerifier(fixture, "regex:^(a|aa)+$", timeout_seconds=0.1)
    assert hostile.check("a" * 60 + "b") is Failure.TIMEOUT
    hostile.close()


WORDS = """SELECT * FROM orders WHERE ( ) ; , -- /* */ ' " 1 id UNION ALL WITH AS a = $$ count(*) é \x00"""
QUERIES = st.lists(st.sampled_from([*WORDS.split(), "\n"])).map(" ".join)


@given(st.text(max_size=60) | QUERIES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_has_a_grade(verifier: SqlVerifier, text: str) -> None:
    assert verifier.check(text) in (0.0, 0.2, 0.5, 1.0)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("CREATE TABEL x", "does not run"),
        ("CREATE TABLE x AS SELECT * FROM read_csv('/etc/passwd')", "does not run"),
        ("COPY (SELECT 1) TO '{folder}/never.csv'", "does not run"),
        ("INSTALL httpfs", "does not run"),
    ],
)
def test_a_fixture_that_does_not_run_is_refused(tmp_path: Path, script: str, message: str) -> None:
    path = tmp_path / "bad.sql"
    path.write_text(script.replace("{folder}", str(tmp_path)))
    before = threading.active_count()
    with pytest.raises(ValueError, match=message) as refused:
        SqlVerifier(path, "code", timeout_seconds=1.0)
    assert str(path) in str(refused.value)
    assert threading.active_count() == before


def test_a_missing_fixture_and_a_bad_extractor_are_refused(tmp_path: Path, fixture: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read fixture .*none\.sql"):
        SqlVerifier(tmp_path / "none.sql", "code", timeout_seconds=1.0)
    (tmp_path / "bytes.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        SqlVerifier(tmp_path / "bytes.sql", "code", timeout_seconds=1.0)
    with pytest.raises(ValueError, match="there is no extractor"):
        SqlVerifier(fixture, "query", timeout_seconds=1.0)
