"""`tao-daemon gateway`: the data plane in the foreground."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tao_daemon.cli.options import config_option, read_config


@click.command()
@config_option
def command(config_path: Path) -> None:
    """Run a gateway until SIGTERM or Ctrl-C. Serves on while the daemon is down.

    \b
    Example:
      tao-daemon gateway --config config.toml
      curl localhost:8080/v1/chat/completions -H 'content-type: application/json' \\
        -d '{"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}'
    """
    config = read_config(config_path)
    from tao_daemon.app import run_gateway_process

    asyncio.run(run_gateway_process(config))
