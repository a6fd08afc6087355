"""`tao-daemon run`: the daemon in the foreground, logs as JSON lines on stderr."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tao_daemon.cli.options import config_option, read_whole_config


@click.command()
@config_option
def command(config_path: Path) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. Needs a Kafka broker and a vLLM server (see the config).

    \b
    Examples:
      tao-daemon run --config config.toml
      tao-daemon run --config config.toml 2>> daemon.log &
    """
    config = read_whole_config(config_path)
    from tao_daemon.app.daemon import run_daemon

    asyncio.run(run_daemon(config))
