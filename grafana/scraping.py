"""A Prometheus for as long as a context lasts, with this project's rules, that scrapes the given targets.

scraping(targets) → the address of a Prometheus that answers → stopped, its data kept
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from tao_daemon.embedded.processes import Command, ManagedProcess, free_port

RULES = Path(__file__).parents[1] / "deploy" / "prometheus"


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
    """Run Debian's Prometheus with data and log in `folder`; its base URL. Raises EmbeddedError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config, indent=2))
    address = f"127.0.0.1:{free_port()}"
    flags = (
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    )
    async with running(Command("prometheus", ("prometheus", *flags), folder / "prometheus.log"), address, start_s):
        yield f"http://{address}"


@asynccontextmanager
async def running(command: Command, address: str, start_s: float) -> AsyncIterator[None]:
    """A server of the Prometheus family for as long as the context lasts; it answers at host:port. EmbeddedError."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session,
        await ManagedProcess.start(command) as process,
    ):
        await process.wait_ready(partial(_is_ready, session, f"http://{address}/-/ready"), deadline_s=start_s)
        yield


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    """These servers say nothing when they are ready; their address answers then."""
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
