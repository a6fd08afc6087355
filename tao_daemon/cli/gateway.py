"""`tao-daemon gateway`: the data plane in the foreground."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from tao_daemon.cli.options import config_option, read_config
from tao_daemon.config import Config


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
    config = read_config(config_path, secrets_of=("kafka", "serving", "gateway"))
    from tao_daemon.gateway.workers import is_worker

    if config.gateway.processes > 1 and not is_worker():
        _run(_parent(config, config_path))
    else:
        _run(_serve(config))


def _run(main: Coroutine[Any, Any, None]) -> None:
    """uvloop: the same requests cost about a quarter less time."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _serve(config: Config) -> None:
    from tao_daemon.app.gateway import run_gateway_process
    from tao_daemon.gateway.workers import end_with_parent, is_worker

    if is_worker():
        end_with_parent()
    await run_gateway_process(config)


async def _parent(config: Config, config_path: Path) -> None:
    from tao_daemon.gateway.workers import run_workers
    from tao_daemon.telemetry.logs import configure_logging

    configure_logging(config.daemon.log_level)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateway = config.gateway
    await run_workers(
        [sys.executable, "-m", "tao_daemon", "gateway", "--config", str(config_path)],
        gateway.processes,
        (gateway.host, gateway.port),
        stop,
        config.daemon.shutdown_seconds,
        metrics_port=gateway.metrics_port,
    )
