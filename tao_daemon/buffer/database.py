"""Opens the buffer's DuckDB file, and says plainly why it cannot.

absent → created with its schema | ours → opened | locked → InstanceError | newer, foreign, damaged → PromptStoreError
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from tao_daemon.buffer import tables
from tao_daemon.buffer.signatures import VERSION as SIGNATURES_VERSION
from tao_daemon.buffer.signatures import fingerprint
from tao_daemon.clients.duckdb import failure_name, settings_for
from tao_daemon.domain.errors import InstanceError, PromptStoreError


def open_database(path: Path) -> tables.Connection:
    """A connection to a file with our schema. Raises InstanceError or PromptStoreError."""
    try:
        connection = duckdb.connect(str(path), config={**settings_for(path)})
    except duckdb.Error as error:
        raise _explained(path, error) from None
    try:
        _prepare(connection, path)
    except duckdb.Error as error:
        connection.close()
        raise PromptStoreError(
            f"{path} cannot be used as a buffer: {failure_name(error)}; is it another program's?"
        ) from None
    except PromptStoreError:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: tables.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise


def _prepare(connection: tables.Connection, path: Path) -> None:
    meta = tables.read_meta(connection)
    if not meta:
        with transaction(connection):
            connection.execute(tables.SCHEMA)
            connection.execute(tables.FORGOTTEN)
            tables.write_meta(connection, {"schema": str(tables.SCHEMA_VERSION), "signatures": SIGNATURES_VERSION})
        return
    if int(meta["schema"]) > tables.SCHEMA_VERSION:
        raise PromptStoreError(
            f"{path} has schema {meta['schema']}, this version knows {tables.SCHEMA_VERSION}; "
            "start the newer tao-daemon that wrote it"
        )
    if int(meta["schema"]) < 2:
        with transaction(connection):
            connection.execute(tables.FORGOTTEN)
            tables.write_meta(connection, {"schema": str(tables.SCHEMA_VERSION)})
    if meta["signatures"] != SIGNATURES_VERSION:
        _sign_again(connection)


def _sign_again(connection: tables.Connection) -> None:
    """Signatures of another algorithm compare as noise: every prompt would look new, and the splits would leak."""
    with transaction(connection):
        for number, prompt in tables.read_first_prompts(connection):
            tables.replace_signature(connection, number, fingerprint(prompt).signature)
        tables.write_meta(connection, {"signatures": SIGNATURES_VERSION})


def _explained(path: Path, error: duckdb.Error) -> Exception:
    message = str(error).splitlines()[0]  # raised before any row was read: it can only name files
    if "lock on file" in message:
        holder = re.search(r"PID (\d+)", message)
        by = f" (process {holder.group(1)})" if holder else ""
        return InstanceError(f"{path} is open in another process{by}; stop it, or use another data_dir")
    return PromptStoreError(f"{path} cannot be opened: {message}")
