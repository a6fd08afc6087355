"""A real Prometheus scrapes the daemon and the gateway, and promtool finds nothing wrong with the metrics."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grafana.scraping import configuration, scraping
from tests.system.observing import query

pytestmark = pytest.mark.system


async def test_every_scrape_succeeds_and_the_metrics_are_well_formed(
    make_site: Callable[..., Any], produce: Any, tmp_path: Path
) -> None:
    site = make_site()
    await asyncio.to_thread(site.start, gateway=True)
    text = "a prompt about rivers and engines"
    produce(site.config["kafka"]["topic"], [{"messages": [{"role": "user", "content": text}]}, b"broken"])
    addresses = [url.removeprefix("http://") for url in (site.control_url, site.gateway_url)]
    async with scraping(tmp_path / "prometheus", configuration({"tao": addresses}, interval="1s")) as server:
        await asyncio.to_thread(look, site, server)
    check(addresses)


def look(site: Any, server: str) -> None:
    """The samples arrive in a Prometheus."""
    site.wait(lambda: len(query(server, "up == 1")) == 2, 60, "both targets to be up")
    site.wait(lambda: query(server, "sum(tao_intake_prompts_total) == 1"), 30, "the prompt to be counted")
    site.wait(lambda: query(server, 'sum(tao_intake_rejected_total{code="not_json"}) == 1'), 30, "the bad record")
    assert query(server, "tao_rollout_serving_base == 1")
    assert query(server, "tao_rollout_incumbent_info")


def check(addresses: list[str]) -> None:
    """promtool finds nothing wrong."""
    promtool = shutil.which("promtool")
    assert promtool is not None
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
            exposition = response.read()
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=exposition, capture_output=True, timeout=30, check=False
        )
        assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()
