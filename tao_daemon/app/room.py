"""Whether a disk has room for what is about to be written."""

from __future__ import annotations

from pathlib import Path

from tao_daemon.clients.storage import free_bytes
from tao_daemon.domain.errors import TaoError

_MIB = 1024 * 1024
_SPARE = 64 * _MIB
"""What logs and journals may need meanwhile."""


def require_room(directory: Path, needed: int, what: str) -> None:
    """Raise TaoError unless `directory` has room for `needed` bytes and some more."""
    free = free_bytes(directory)
    if free < needed + _SPARE:
        raise TaoError(
            f"{what} needs {(needed + _SPARE) // _MIB} MiB and {directory} has {free // _MIB} MiB free; make room first"
        )


def size_of(directory: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
