"""Options that several commands share."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tao_daemon.config import Config, load_config

Decorated = Callable[..., Any]


def config_option(function: Decorated) -> Decorated:
    """--config FILE, default config.toml, also $TAO_CONFIG."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("config.toml"),
        envvar="TAO_CONFIG",
        show_default=True,
        show_envvar=True,
        help="The configuration file.",
    )(function)


def json_option(function: Decorated) -> Decorated:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def reason_option(function: Decorated) -> Decorated:
    return click.option("--reason", default="", help="Why; goes into the audit log.")(function)


def actor() -> str:
    """Who is at the keyboard, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def read_config(path: Path) -> Config:
    return load_config(path)
