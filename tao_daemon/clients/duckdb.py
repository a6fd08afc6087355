"""How DuckDB is opened, how files are named to it, and what is told of its failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

SETTINGS: Mapping[str, str] = {"memory_limit": "1GB", "threads": "2", "autoinstall_known_extensions": "false"}
"""DuckDB would take 80 % of the machine's memory by default, and look for extensions on the network."""

_MEMORY_MIB = 1024


def settings_for(path: Path) -> dict[str, str]:
    """For a file with a primary key: DuckDB keeps the key's index (some 75 bytes a row) in memory, within the limit."""
    size = path.stat().st_size if path.is_file() else 0
    return {**SETTINGS, "memory_limit": f"{_MEMORY_MIB + size // 4 // 2**20}MiB"}


def quoted(path: Path) -> str:
    """A string literal of SQL, quotes included, for statements that take no parameter there."""
    return "'" + str(path).replace("'", "''") + "'"


def failure_name(error: duckdb.Error) -> str:
    """What kind of failure; never DuckDB's own message, which may quote a prompt."""
    return type(error).__name__
