"""A Prometheus for as long as a context lasts, with this project's rules, that scrapes the given targets.

scraping(targets) → the address of a Prometheus that answers → stopped, its data kept
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

RULES = Path(__file__).parents[1] / "deploy" / "prometheus"


class ScrapingError(Exception):
    """Prometheus did not start."""


def configuration(
    targets: Mapping[str, Sequence[str]],
    *,
    interval: str = "2s",
    rules: Sequence[Path] = (RULES / "recording.rules.yml", RULES / "alerts.rules.yml"),
    alertmanagers: Sequence[str] = (),
) -> dict[str, Any]:
    """Prometheus' configuration (JSON is YAML): targets are host:port by job."""
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(path) for path in rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
        ],
    }


@asynccontextmanager
async def scraping(folder: Path, config: Mapping[str, Any], start_s: float = 30.0) -> AsyncIterator[str]:
    """Run Debian's Prometheus with data and log in `folder`; its base URL. Raises ScrapingError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config, indent=2))
    port = _free_port()
    flags = (
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("prometheus", *flags, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        await asyncio.wait_for(_ready(address, process), start_s)
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def _ready(address: str, process: asyncio.subprocess.Process) -> None:
    """Prometheus says nothing when it is ready; its address answers then."""
    async with aiohttp.ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(f"{address}/-/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise ScrapingError("prometheus ended at its start: its log is beside its configuration")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
