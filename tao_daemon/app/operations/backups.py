"""Backs data_dir up: one directory with everything that a restore needs, consistent, with a digest of every file.

Invariants: nobody writes to data_dir meanwhile; the backup appears whole or not at all, and never replaces another.

copy beside the target → manifest → fsync → rename
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tao_daemon import __version__
from tao_daemon.app.operations import Progress
from tao_daemon.app.operations.backup_manifest import NAME, BackupManifest, describe, write_manifest
from tao_daemon.app.operations.erasing import finish_erasure
from tao_daemon.app.paths import buffer_path, existing_buffer, journal_path, token_path
from tao_daemon.buffer.copying import copy_buffer
from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.exporting import Filter, count_prompts
from tao_daemon.clients.failpoints import reach
from tao_daemon.clients.storage import UNFINISHED, publishing, remove_unfinished_of, require_room, size_of
from tao_daemon.config import Config
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.domain.errors import JournalError, TaoError
from tao_daemon.domain.ports import Clock
from tao_daemon.registry.journal import Journal

_LEFT_OUT_BELOW = (f"{UNFINISHED}*", "training", "*.tmp")


def back_up(config: Config, target: Path, clock: Clock, progress: Progress) -> dict[str, Any]:
    """Write the backup `target`. Raises TaoError; then there is none."""
    data_dir, target = config.daemon.data_dir.absolute(), target.absolute()
    _check_target(target, data_dir)
    with sole_owner(data_dir):
        buffer = existing_buffer(config)
        finish_erasure(config, clock)
        needed = size_of(data_dir)
        require_room(target.parent, needed, f"the backup {target}")
        remove_unfinished_of(target)
        with publishing(target) as staged:
            staged.chmod(0o700)
            progress("buffer", 0, 4)
            copy_buffer(buffer, staged / buffer.name)
            progress("journal", 1, 4)
            head = _copy_journal(journal_path(config), staged)
            progress("rounds and adapters", 2, 4)
            _copy_rest(config, staged)
            progress("digests", 3, 4)
            manifest = BackupManifest(clock(), __version__, head, _prompts(buffer), describe(staged))
            write_manifest(staged, manifest)
            reach("backup.copied")
        progress("done", 4, 4)
    return {
        "backup": str(target),
        "files": len(manifest.files),
        "bytes": sum(each.bytes for each in manifest.files.values()),
        "prompts": manifest.prompts,
        "journal": {"seq": head[0], "hash": head[1]} if head else None,
    }


def _check_target(target: Path, data_dir: Path) -> None:
    if target.exists():
        raise TaoError(f"{target} exists; a backup never replaces anything, name a new directory")
    if target.is_relative_to(data_dir):
        raise TaoError(f"{target} lies in data_dir ({data_dir}), which it is a backup of; name a directory elsewhere")
    if not target.parent.is_dir():
        raise TaoError(f"{target.parent} is not a directory; make it first")


def _copy_journal(source: Path, staged: Path) -> tuple[int, str] | None:
    """SQLite's own online copy; its hash chain is checked, as a broken one is worth nothing later."""
    if not source.exists():
        return None
    copy = staged / source.name
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise JournalError(f"{source} could not be copied: {error}; is the disk full?") from None
    with closing(Journal(copy)) as journal:
        journal.verify()
        last = journal.last()
    with closing(sqlite3.connect(copy)) as settled:
        settled.execute("PRAGMA journal_mode=DELETE")
    return (last.seq, last.hash) if last else None


def _copy_rest(config: Config, staged: Path) -> None:
    # Databases are copied in their own way; the rest belongs to a process, is a secret, or is made again.
    databases = (f"{path(config).name}*" for path in (buffer_path, journal_path))
    left_out = (*databases, "daemon.lock", token_path(config).name, f"{UNFINISHED}*", NAME)
    for path in sorted(config.daemon.data_dir.iterdir()):
        if any(path.match(pattern) for pattern in left_out):
            continue
        if path.is_dir():
            shutil.copytree(path, staged / path.name, ignore=shutil.ignore_patterns(*_LEFT_OUT_BELOW))
        else:
            shutil.copy2(path, staged / path.name)


def _prompts(buffer: Path) -> int:
    with closing(open_database(buffer)) as connection:
        return count_prompts(connection, Filter())
