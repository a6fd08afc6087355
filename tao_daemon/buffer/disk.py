"""Keeps room on the disk: a floor below which nothing is ingested, and a ballast file to give back in need.

A full disk makes DuckDB's instance fatal, and even deleting needs space: so intake stops well before. When others
fill the disk first, the ballast is what lets the database open and roll back again.

restored (room) → checked before every batch → released (disk full) → restored
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tao_daemon.clients.storage import free_bytes
from tao_daemon.domain.errors import PromptStoreError

MIB = 1024 * 1024
_BALLAST_BYTES = 16 * MIB


def database_bytes(database: Path) -> int:
    """The file with its write-ahead log. Raises OSError."""
    files = (database, database.with_name(database.name + ".wal"))
    return sum(file.stat().st_size for file in files if file.exists())


class DiskReserve:
    """The reserve beside one database file. `floor_mib` 0 turns it off."""

    def __init__(
        self, database: Path, *, floor_mib: int, free: Callable[[Path], int] = free_bytes, ballast: int = _BALLAST_BYTES
    ) -> None:
        self._database = database
        self._directory = database.parent
        self._ballast = database.with_name(database.name + ".ballast")
        self._ballast_bytes = ballast
        self._floor_mib = floor_mib
        self._free = free

    def require(self) -> None:
        """Raise PromptStoreError below the floor; put the ballast back above it."""
        if not self._floor_mib:
            return
        try:
            free = self._free(self._directory)
            if free > self._floor_mib * MIB + self._ballast_bytes:
                self._restore()
        except OSError as error:
            raise PromptStoreError(f"cannot keep a reserve in {self._directory}: {error.strerror}") from None
        if free < self._floor_mib * MIB:
            raise PromptStoreError(
                f"{free // MIB} MiB free in {self._directory}, below buffer.min_free_disk_mib ({self._floor_mib}); "
                "free some space and intake continues by itself"
            )

    def measure(self) -> tuple[int, int, int]:
        """Bytes of the database with its write-ahead log, bytes free, and the floor. Raises OSError."""
        return database_bytes(self._database), self._free(self._directory), self._floor_mib * MIB

    def release(self) -> None:
        """Give the ballast back, if the disk is about full."""
        if self._floor_mib and self._free(self._directory) < self._ballast_bytes:
            self._ballast.unlink(missing_ok=True)

    def _restore(self) -> None:
        if self._ballast.exists():
            return
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self._ballast_bytes)
