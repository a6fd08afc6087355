"""Copies of the buffer's file that hold its rows and nothing else: how bytes are erased, and how backups are made.

DuckDB never gives back what it deleted: the bytes stay in the file. A copy of the rows is the only way out.

closed file → copy beside it → fsync → rename over it
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import duckdb

from tao_daemon.buffer.database import open_database
from tao_daemon.clients.duckdb import failure_name, quoted, settings_for
from tao_daemon.clients.failpoints import reach
from tao_daemon.clients.storage import UNFINISHED, fsync_directory
from tao_daemon.domain.errors import PromptStoreError


def copy_buffer(source: Path, target: Path) -> None:
    """A synced copy of the rows of a buffer that nobody has open. Raises PromptStoreError, InstanceError."""
    _settle(source)
    spill = target.with_name(f"{UNFINISHED}spill-{secrets.token_hex(4)}")
    try:
        with duckdb.connect(config={**settings_for(source), "temp_directory": str(spill)}) as connection:
            connection.execute(f"ATTACH {quoted(source)} AS old (READ_ONLY)")
            connection.execute(f"ATTACH {quoted(target)} AS new")
            connection.execute("COPY FROM DATABASE old TO new")
            connection.execute("CHECKPOINT new")
            connection.execute("DETACH new")
        with target.open("rb") as file:
            os.fsync(file.fileno())
    except (duckdb.Error, OSError) as error:
        target.unlink(missing_ok=True)
        what = failure_name(error) if isinstance(error, duckdb.Error) else error.strerror
        raise PromptStoreError(
            f"{source} could not be copied to {target}: {what}; is the disk full, or the memory?"
        ) from None
    finally:
        shutil.rmtree(spill, ignore_errors=True)
        _log_of(target).unlink(missing_ok=True)


def compact(path: Path) -> None:
    """Replace the file by a copy of its rows. At any moment the file is the old one or the new one."""
    copy = path.with_name(f"{UNFINISHED}{path.name}-{secrets.token_hex(4)}")
    copy_buffer(path, copy)
    reach("buffer.copied")
    if _log_of(path).exists():  # it would be replayed into the new file
        copy.unlink()
        raise PromptStoreError(f"{_log_of(path)} is still there after a checkpoint; is the disk full?")
    copy.replace(path)
    fsync_directory(path.parent)
    shutil.rmtree(path.with_name(path.name + ".tmp"), ignore_errors=True)


def _settle(path: Path) -> None:
    """Fold the write-ahead log into the file, and bring its schema to this version."""
    connection = open_database(path)
    try:
        connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        raise PromptStoreError(f"{path}: {failure_name(error)} at a checkpoint; is the disk full?") from None
    finally:
        connection.close()


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")
