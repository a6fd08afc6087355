"""Options that several commands share: which daemon, how to print, who and why."""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.domain.errors import ConfigError

if TYPE_CHECKING:
    from tao_daemon.config import Config

Decorated = Callable[..., Any]
CONFIG_ENV, URL_ENV, TOKEN_ENV = "TAO_CONFIG", "TAO_URL", "TAO_TOKEN"
DEFAULT_CONFIG = Path("config.toml")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def config_option(function: Decorated) -> Decorated:
    """--config FILE, default config.toml, also $TAO_CONFIG."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_CONFIG,
        envvar=CONFIG_ENV,
        show_default=True,
        show_envvar=True,
        help="The configuration file.",
    )(function)


def daemon_options(function: Decorated) -> Decorated:
    """--config on the daemon's machine, --url and --token from elsewhere; the command gets `client`."""

    @click.option("--url", envvar=URL_ENV, show_envvar=True, help="A daemon elsewhere, instead of the config's.")
    @click.option(
        "--token",
        "token_source",
        metavar="SOURCE",
        help="env:NAME or file:PATH; $TAO_TOKEN holds the token itself.  [default: data_dir/control.token]",
    )
    @config_option
    @functools.wraps(function)
    def command(config_path: Path, url: str | None, token_source: str | None, **given: Any) -> Any:
        return function(client=connect(config_path, url, token_source), **given)

    return command


def connect(config_path: Path, url: str | None, token_source: str | None) -> ControlClient:
    """A client of the daemon that the options name. No request is made. Raises ConfigError."""
    token = resolve_token(token_source) if token_source else os.environ.get(TOKEN_ENV) or None
    if not url:
        return ControlClient(read_config(config_path), token=token)
    client = ControlClient(url=url, token=token)
    parts = urlsplit(url)
    if token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        click.echo(f"warning: the token travels to {parts.hostname} unencrypted; use https", err=True)
    return client


def resolve_token(source: str) -> str:
    """A secret by reference, as in the configuration. Raises ConfigError, never with the value."""
    scheme, _, rest = source.partition(":")
    if scheme == "env" and rest:
        if value := os.environ.get(rest, "").strip():
            return value
        raise ConfigError(f"--token: environment variable {rest} is not set")
    if scheme == "file" and rest:
        try:
            return Path(rest).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token: cannot read {rest}: {getattr(error, 'strerror', 'not text')}") from None
    raise ConfigError("--token takes env:NAME or file:PATH, so that no token shows in a list of processes")


def json_option(function: Decorated) -> Decorated:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def reason_option(function: Decorated) -> Decorated:
    return click.option("--reason", default="", help="Why; goes into the audit log.")(function)


def yes_option(function: Decorated) -> Decorated:
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(function)


def watch_option(help: str) -> Callable[[Decorated], Decorated]:
    return click.option("--watch", "-w", is_flag=True, help=help)


def actor() -> str:
    """Who is at the keyboard, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def read_config(path: Path, *, secrets_of: Collection[str] = ()) -> Config:
    """With the secrets of these sections alone: an undo needs none."""
    from tao_daemon.config import load_config

    return load_config(path, secrets_of=secrets_of)


def read_whole_config(path: Path) -> Config:
    """With every secret."""
    from tao_daemon.config import load_config

    return load_config(path)
