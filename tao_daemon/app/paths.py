"""Where things are in data_dir."""

from __future__ import annotations

from pathlib import Path

from tao_daemon.config import Config
from tao_daemon.domain.errors import PromptStoreError


def journal_path(config: Config) -> Path:
    return config.daemon.data_dir / "control.db"


def routes_path(config: Config) -> Path:
    return config.daemon.data_dir / "routes.json"


def buffer_path(config: Config) -> Path:
    return config.daemon.data_dir / "tao.duckdb"


def existing_buffer(config: Config) -> Path:
    """Where the buffer is. Raises PromptStoreError where there is none, so that a wrong path creates nothing."""
    path = buffer_path(config)
    if not path.exists():
        raise PromptStoreError(f"there is no buffer at {path}; is daemon.data_dir the one the daemon uses?")
    return path
