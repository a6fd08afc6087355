"""Where things are in data_dir."""

from __future__ import annotations

from pathlib import Path

from tao_daemon.config import Config


def journal_path(config: Config) -> Path:
    return config.daemon.data_dir / "control.db"


def routes_path(config: Config) -> Path:
    return config.daemon.data_dir / "routes.json"
