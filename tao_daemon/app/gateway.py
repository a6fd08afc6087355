"""The gateway process."""

from __future__ import annotations

import time

from tao_daemon.app.stopping import stop_event
from tao_daemon.config import Config
from tao_daemon.gateway.server import run_gateway
from tao_daemon.telemetry.logs import configure_logging


async def run_gateway_process(config: Config) -> None:
    """Run a gateway until SIGTERM or SIGINT."""
    configure_logging(config.daemon.log_level)
    await run_gateway(config, stop_event(), clock=time.time)
