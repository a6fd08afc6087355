"""Files that survive a power cut: written beside their place, synced, then renamed.

A reader sees the old content or the new, never a part. Names starting with `.tmp-` are unfinished.

write → fsync file → rename → fsync directory
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".tmp-"
"""Prefix of what is being written; whoever owns the directory may delete it after a crash."""


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`. After it returns the content survives a crash of the machine."""
    temporary = _unfinished_sibling(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def atomic_write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON. NaN is refused: other readers cannot parse it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(path, f"{text}\n".encode())


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """An empty directory to fill; it becomes `target` when the block ends well, and vanishes otherwise.

    Every file is synced before the rename. Raises FileExistsError when `target` is already there.
    """
    temporary = _unfinished_sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        _fsync_tree(temporary)
        # A rename would silently replace an empty directory.
        if target.exists():
            raise FileExistsError(f"{target} exists already; what is published never changes")
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(target.parent)


def remove_unfinished(directory: Path) -> None:
    """Delete what an interrupted writer left in `directory`. Only for its one writer."""
    for path in directory.glob(f"{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(directory: Path) -> dict[str, str]:
    """Relative path to SHA-256 for every file below `directory`, in order of the paths."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_file(path) for path in files}


def free_bytes(path: Path) -> int:
    """Space that an ordinary user can still write on the file system of `path`."""
    return shutil.disk_usage(path).free


def fsync_directory(path: Path) -> None:
    """Make renames and deletions in a directory survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unfinished_sibling(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{path.name}-{secrets.token_hex(4)}")


def _fsync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_dir():
            fsync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    fsync_directory(directory)
