"""Where things are in data_dir."""

from __future__ import annotations

from pathlib import Path

from tao_daemon.config import Config
from tao_daemon.control.auth import FILE_NAME as TOKEN
from tao_daemon.domain.errors import JournalError, PromptStoreError


def journal_path(config: Config) -> Path:
    return config.daemon.data_dir / "control.db"


def routes_path(config: Config) -> Path:
    return config.daemon.data_dir / "routes.json"


def buffer_path(config: Config) -> Path:
    return config.daemon.data_dir / "tao.duckdb"


def rounds_path(config: Config) -> Path:
    return rounds_below(config.daemon.data_dir)


def rounds_below(data_dir: Path) -> Path:
    return data_dir / "rounds"


def adapters_path(config: Config) -> Path:
    return config.daemon.data_dir / "adapters"


def token_path(config: Config) -> Path:
    """The local administrator's token."""
    return config.daemon.data_dir / TOKEN


def existing_journal(config: Config) -> Path:
    """Where the journal is. Raises JournalError where there is none, so that a wrong path creates nothing."""
    path = journal_path(config)
    if not path.exists():
        raise JournalError(f"there is no journal at {path}; is daemon.data_dir the one the daemon uses?")
    return path


def existing_buffer(config: Config) -> Path:
    """Where the buffer is. Raises PromptStoreError where there is none, so that a wrong path creates nothing."""
    path = buffer_path(config)
    if not path.exists():
        raise PromptStoreError(f"there is no buffer at {path}; is daemon.data_dir the one the daemon uses?")
    return path
