"""The rules are sound, and an alert goes the whole way: a model server dies, a webhook hears of it, and of its return.

The live test runs on copies of the committed files with shorter waits (`for`, group_wait, group_interval) and the URLs
of this machine; expressions, labels, routes and receivers are as committed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.monitoring import alertmanager, webhook
from grafana.scraping import RULES, configuration, scraping
from tao_daemon.embedded.vllm_server import EmbeddedVllm
from tests.conftest import wait_until
from tests.system.observing import query

pytestmark = pytest.mark.system

ALERTMANAGER = RULES.parent / "alertmanager" / "alertmanager.yml"


@pytest.mark.parametrize(
    "arguments",
    [
        ["promtool", "check", "config", "prometheus.yml"],
        ["promtool", "check", "rules", "recording.rules.yml", "alerts.rules.yml"],
        ["promtool", "test", "rules", "alerts.test.yml"],
        ["amtool", "check-config", str(ALERTMANAGER)],
    ],
    ids=["config", "rules", "tests of the rules", "alertmanager"],
)
def test_the_tools_find_nothing_wrong(arguments: list[str]) -> None:
    done = subprocess.run(arguments, cwd=RULES, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_rules_notice_a_changed_rule(tmp_path: Path) -> None:
    """promtool fails when a threshold moves: the tests are tests."""
    for path in RULES.glob("*.yml"):
        shutil.copy(path, tmp_path)
    alerts = tmp_path / "alerts.rules.yml"
    alerts.write_text(alerts.read_text().replace("ratio_rate5m > 0.05", "ratio_rate5m > 0.5"))
    asked = ["promtool", "test", "rules", "alerts.test.yml"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "TaoGatewayErrors fires" in done.stdout + done.stderr


def quick_routes(folder: Path, webhook: str) -> str:
    """The example's Alertmanager configuration, with this webhook and short waits."""
    url = folder / "webhook.url"
    url.write_text(webhook)
    config = re.sub(r"api_url_file: \S+", f"api_url_file: {url}", ALERTMANAGER.read_text())
    return re.sub(r"(group_wait|group_interval): \S+", r"\1: 1s", config)


def quick_rules(folder: Path) -> list[Path]:
    """Copies of the rules whose alerts fire after two seconds."""
    copies = []
    for name in ("recording.rules.yml", "alerts.rules.yml"):
        copies.append(folder / name)
        copies[-1].write_text(re.sub(r"(\s+for:) \S+", r"\1 2s", (RULES / name).read_text()))
    return copies


def told(received: list[dict[str, Any]], status: str) -> list[str]:
    """Titles of the messages that say `firing` or `resolved` of a model server, as Slack would show them."""
    titles = [message["attachments"][0]["title"] for message in received]
    return [title for title in titles if title.startswith(status) and "Model server" in title]


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_a_webhook_hears_that_a_model_server_died_and_that_it_is_back(
    tmp_path: Path, make_site: Callable[..., Any], tiny_model: Path
) -> None:
    received: list[dict[str, Any]] = []
    serve = partial(EmbeddedVllm, tiny_model, served_model_name="base", log_path=tmp_path / "vllm.log")
    async with AsyncExitStack() as exits:
        model_server = await exits.enter_async_context(serve())
        serving = {"replicas": [model_server.base_url], "reconcile_seconds": 0.5, "request_timeout_seconds": 3.0}
        site = make_site(kafka={"enabled": False}, serving={**serving, "base_model": "base"})
        await asyncio.to_thread(site.start, gateway=True)
        hook = await exits.enter_async_context(webhook(received.append))
        manager = await exits.enter_async_context(alertmanager(tmp_path / "alerting", quick_routes(tmp_path, hook)))
        targets = {"tao-daemon": [site.control_url[7:]], "tao-gateway": [site.gateway_url[7:]]}
        config = configuration(targets, interval="1s", rules=quick_rules(tmp_path), alertmanagers=[manager])
        address = await exits.enter_async_context(scraping(tmp_path / "prometheus", config))
        await until(lambda: query(address, "tao_serving_replica_reachable == 1"), 60, "the server to be seen")
        assert model_server.process is not None
        await model_server.process.stop(grace_s=0)
        await until(lambda: told(received, "FIRING"), 60, "the webhook to hear of it")
        await exits.enter_async_context(serve(port=model_server.settings.port))
        await until(lambda: told(received, "RESOLVED"), 60, "the webhook to hear that it is over")
    message = next(m["attachments"][0] for m in received if "Model server" in m["attachments"][0]["title"])
    assert "0 of 1 replicas answer the daemon." in message["text"]
    assert "docs/runbook.md#taomodelserverdown" in message["text"]


async def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, seconds, what)
