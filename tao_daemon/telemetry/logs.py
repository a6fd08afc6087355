"""JSON lines on stderr: one object per record, extra fields as keys. No text of prompts ever gets here."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

_NOISY = ("kafka", "apscheduler", "aiohttp.access", "asyncio", "urllib3")


def configure_logging(level: str) -> None:
    """Send every log record of this process to stderr as JSON; libraries only from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger"},
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Each retry is a warning there; what came of it is told by whoever asked, and counted.
    logging.getLogger("stamina").setLevel(logging.ERROR)
