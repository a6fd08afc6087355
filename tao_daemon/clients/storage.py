"""Files that survive a power cut: written beside their place, synced, then renamed.

A reader sees the old content or the new, never a part. Names starting with `.tmp-` are unfinished.

write → fsync file → rename → fsync directory
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tao_daemon.domain.errors import TaoError

UNFINISHED = ".tmp-"
"""Prefix of what is being written; whoever owns the directory may delete it after a crash."""

_RANDOM_BYTES = 4
"""Of its name."""
_MODE = 0o666
"""What files allow by default, before the umask."""
_MIB = 1024 * 1024
_SPARE = 64 * _MIB
"""What logs and journals may need meanwhile."""


def atomic_write_bytes(path: Path, data: bytes, *, mode: int = _MODE) -> None:
    """Replace `path` by `data`. After it returns the content survives a crash of the machine.

    `mode` is what the new file may allow at most; the umask takes from it.
    """
    with replacing(path, mode=mode) as file:
        file.write(data)


def atomic_write_json(path: Path, value: Any, *, mode: int = _MODE) -> None:
    """Replace `path` by `value` as indented JSON. NaN is refused: other readers cannot parse it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(path, f"{text}\n".encode(), mode=mode)


@contextmanager
def replacing(path: Path, *, mode: int = _MODE) -> Iterator[BinaryIO]:
    """A file to write; it replaces `path` when the block ends well, and vanishes otherwise."""
    with _unfinished_file(path, mode) as (file, temporary):
        yield file
        _sync(file)
        temporary.replace(path)
    fsync_directory(path.parent)


@contextmanager
def publishing_file(path: Path, *, mode: int = _MODE) -> Iterator[BinaryIO]:
    """As `replacing`, and raises FileExistsError when `path` is there by the end: it never changes."""
    with _unfinished_file(path, mode) as (file, temporary):
        yield file
        _sync(file)
        try:
            os.link(temporary, path)  # unlike a rename, it fails when the target is there
        except FileExistsError as error:
            raise FileExistsError(error.errno, error.strerror, str(path)) from None
    fsync_directory(path.parent)


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
        _remove(path)


def remove_unfinished_of(target: Path) -> None:
    """Delete what interrupted writers of `target` left beside it; nothing that is being written to another name."""
    for path in target.parent.glob(f"{UNFINISHED}{glob.escape(target.name)}-{'[0-9a-f]' * 2 * _RANDOM_BYTES}"):
        _remove(path)


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


def size_of(directory: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def require_room(directory: Path, needed: int, what: str) -> None:
    """Raise TaoError unless `directory` has room for `needed` bytes of `what` and some more."""
    free = free_bytes(directory)
    if free < needed + _SPARE:
        raise TaoError(
            f"{what} needs {(needed + _SPARE) // _MIB} MiB and {directory} has {free // _MIB} MiB free; make room first"
        )


def fsync_directory(path: Path) -> None:
    """Make renames and deletions in a directory survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _unfinished_file(path: Path, mode: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside `path` that is open for writing; it is gone when the block ends, unless it was renamed."""
    temporary = _unfinished_sibling(path)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unfinished_sibling(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{path.name}-{secrets.token_hex(_RANDOM_BYTES)}")


def _fsync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_dir():
            fsync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    fsync_directory(directory)
