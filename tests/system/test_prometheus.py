"""A real Prometheus scrapes the daemon and the gateway, and promtool finds nothing wrong with the metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.embedded.processes import free_port, guarded

pytestmark = pytest.mark.system


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[list[str]], str]]:
    """Starts a Prometheus that scrapes the given host:port targets every second; its address."""
    started: list[subprocess.Popen[bytes]] = []

    def start(targets: list[str]) -> str:
        port = free_port()
        config = tmp_path / "prometheus.yml"
        scrape = {"job_name": "tao", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
        config.write_text(json.dumps({"scrape_configs": [scrape]}))
        arguments = [
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        log = (tmp_path / "prometheus.log").open("wb")
        started.append(
            subprocess.Popen(guarded(["prometheus", *arguments]), stdin=subprocess.PIPE, stdout=log, stderr=log)
        )
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def query(address: str, expression: str) -> list[dict[str, Any]]:
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=5) as response:
        found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    return found


def test_every_scrape_succeeds_and_the_metrics_are_well_formed(
    make_site: Callable[..., Any], produce: Any, prometheus: Callable[[list[str]], str]
) -> None:
    site = make_site()
    site.start(gateway=True)
    text = "a prompt about rivers and engines"
    produce(site.config["kafka"]["topic"], [{"messages": [{"role": "user", "content": text}]}, b"broken"])
    addresses = [url.removeprefix("http://") for url in (site.control_url, site.gateway_url)]
    server = prometheus(addresses)
    site.wait(lambda: len(query(server, "up == 1")) == 2, 60, "both targets to be up")
    site.wait(lambda: query(server, "sum(tao_intake_prompts_total) == 1"), 30, "the prompt to be counted")
    assert query(server, 'sum(tao_intake_rejected_total{code="not_json"}) == 1')
    assert query(server, "tao_rollout_serving_base == 1")
    assert query(server, "tao_rollout_incumbent_info")
    promtool = shutil.which("promtool")
    assert promtool is not None
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
            exposition = response.read()
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=exposition, capture_output=True, timeout=30, check=False
        )
        assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()
