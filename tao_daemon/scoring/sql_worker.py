"""The process in which strangers' SQL runs: a database in memory, and nothing else in reach.

DuckDB's memory limit does not cover what one function makes (repeat('x', 1000000000) takes 2 GB, and cannot be
interrupted meanwhile), so the process itself is bounded, and whoever started it kills it at the deadline. No access to
files or network, no extensions, a locked configuration; a query runs in a read-only transaction on a connection of its
own, so it changes nothing for the next one.

{"fixture", "seconds"} → {"tables"} | {"error"}, then {"query", "seconds"} → {"score"} | {"failure"} until stdin closes
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "access_mode": "automatic",
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "memory_limit": "256MB",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "threads": "1",
}
MAX_GROWTH = 1 << 30
"""Bytes that the process may map beyond what the fixture left it with."""
GRACE_SECONDS = 1.0
"""Beyond a task's deadline."""
MAX_ROWS = 1_000
"""Rows of a result that are made: the query has run when they have come."""

_TABLE_NAME = re.compile(r'"table_name":("(?:[^"\\]|\\.)*")')
_CTE_NAME = re.compile(r'"key":("(?:[^"\\]|\\.)*")')
_SHOWS = '"type":"SHOW_REF"'
"""DESCRIBE, SHOW and SUMMARIZE, which say something about tables."""

NO_QUERY, PARSES, RUNS, FINDS = 0.0, 0.2, 0.5, 1.0


def main() -> None:
    """Answers lines of stdin on stdout, until stdin closes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        database = open_fixture(_next(sys.stdin.readline())["fixture"])
    except (duckdb.Error, MemoryError) as error:
        _answer({"error": (str(error).splitlines() or [type(error).__name__])[0]})
        return
    tables = names(database)
    assert _tables_read(database, "SELECT * FROM a, b") == {"a", "b"}
    _bound_memory()
    _answer({"tables": len(tables)})
    for line in sys.stdin:
        try:
            _answer({"score": grade(database, tables, _next(line)["query"])})
        except (duckdb.OutOfMemoryException, MemoryError):
            _answer({"failure": "memory"})


def open_fixture(script: str) -> Any:
    """A locked database in memory on which the script was run. Raises duckdb.Error."""
    database = duckdb.connect(":memory:", config=SETTINGS)
    database.execute(script)
    database.execute("SET lock_configuration = true")
    return database


def names(database: Any) -> frozenset[str]:
    """The fixture's tables and views, in lower case."""
    found = database.execute("SELECT lower(table_name) FROM information_schema.tables").fetchall()
    return frozenset(name for (name,) in found)


def grade(database: Any, tables: frozenset[str], query: str) -> float:
    """The query's grade (see `sql_verifier`). Raises duckdb's errors of memory and of a broken database only.

    `query` has no lone surrogates."""
    with _connection(database) as connection:
        try:
            statements = connection.extract_statements(query)
        except duckdb.Error:
            return NO_QUERY
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return NO_QUERY
        try:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            rows = connection.execute(_every_value(query)).fetchall()
            read = _tables_read(connection, query)
        except (duckdb.OutOfMemoryException, duckdb.FatalException, duckdb.InternalException):
            raise
        except duckdb.Error:
            return PARSES
        return FINDS if rows and read & tables else RUNS


def _every_value(query: str) -> str:
    """The query with a number in place of each row, for which every value must be made; so no value, however large or
    of whatever type, becomes a Python object."""
    text, tokens = query.encode(), duckdb.tokenize(query)
    end = len(text)
    for start, kind in reversed(tokens):
        if kind != duckdb.token_type.comment and text[start : start + 1] != b";":
            break
        end = start
    return f"SELECT hash(found) FROM (\n{text[:end].decode()}\n) AS found LIMIT {MAX_ROWS}"


def _tables_read(connection: Any, query: str) -> set[str]:
    """Every table and view that a query reads, in lower case; none where it looks at tables from outside."""
    ((tree,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    if _SHOWS in tree:
        return set()
    # Tables are told by the binder, which a WITH of the same name does not mislead; views, and what it cannot bind
    # without columns (UNPIVOT), by their names.
    return _bound(connection, query) | (_found(_TABLE_NAME, tree) - _found(_CTE_NAME, tree))


def _bound(connection: Any, query: str) -> set[str]:
    try:
        return {name.lower() for name in connection.get_table_names(query)}
    except (duckdb.BinderException, duckdb.CatalogException):
        return set()


def _found(pattern: re.Pattern[str], tree: str) -> set[str]:
    # Not parsed: it may nest deeper than Python can follow. What the query quotes is escaped in it, so never found.
    return {json.loads(name).lower() for name in pattern.findall(tree)}


@contextmanager
def _connection(database: Any) -> Iterator[Any]:
    """A connection of its own; closing it rolls its transaction back."""
    connection = database.cursor()
    try:
        yield connection
    finally:
        connection.close()


def _next(line: str) -> dict[str, Any]:
    """The next task. Whoever is to kill this process at the deadline may have died: then it ends by itself."""
    task: dict[str, Any] = json.loads(line)
    signal.setitimer(signal.ITIMER_REAL, task["seconds"] + GRACE_SECONDS)
    return task


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + MAX_GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _answer(message: dict[str, Any]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
