"""The rules are sound, and an alert goes the whole way: a model server dies, a webhook hears of it, and of its return.

The live test runs on copies of the committed files with shorter waits (`for`, group_wait, group_interval) and the URLs
of this machine; expressions, labels, routes and receivers are as committed.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from grafana.scraping import RULES, configuration, scraping
from tao_daemon.embedded.processes import free_port, guarded
from tao_daemon.embedded.vllm_server import EmbeddedVllm
from tests.system.observing import Webhook, query

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


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    listening = Webhook()
    yield listening
    listening.close()


@asynccontextmanager
async def alerting(folder: Path, webhook: str) -> AsyncIterator[str]:
    """Debian's Alertmanager with the example's routes; its host:port."""
    folder.mkdir()
    url = folder / "webhook.url"
    url.write_text(webhook)
    config = re.sub(r"api_url_file: \S+", f"api_url_file: {url}", ALERTMANAGER.read_text())
    config = re.sub(r"(group_wait|group_interval): \S+", r"\1: 1s", config)
    (folder / "alertmanager.yml").write_text(config)
    address = f"127.0.0.1:{free_port()}"
    flags = [
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (folder / "alertmanager.log").open("wb") as log:
        argv = guarded(["prometheus-alertmanager", *flags])
        process = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.PIPE, stdout=log, stderr=log)
    assert process.stdin is not None
    try:
        yield address
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)


def quick_rules(folder: Path) -> list[Path]:
    """Copies of the rules whose alerts fire after two seconds."""
    copies = []
    for name in ("recording.rules.yml", "alerts.rules.yml"):
        copies.append(folder / name)
        copies[-1].write_text(re.sub(r"(\s+for:) \S+", r"\1 2s", (RULES / name).read_text()))
    return copies


def pid_that_listens(port: int) -> int:
    """The model server's first process, by its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0")
        guard = any(word.endswith(b"guard.py") for word in words)
        if b"vllm.entrypoints.openai.api_server" in words and str(port).encode() in words and not guard:
            return int(path.parent.name)
    raise AssertionError(f"no vLLM listens on {port}")


def told(webhook: Webhook, status: str) -> list[str]:
    """Titles of the messages that say `firing` or `resolved` of a model server, as Slack would show them."""
    messages = [message["attachments"][0] for message in webhook.received]
    return [
        found["title"] for found in messages if found["title"].startswith(status) and "Model server" in found["title"]
    ]


@pytest.mark.vllm
@pytest.mark.timeout(900)
async def test_a_webhook_hears_that_a_model_server_died_and_that_it_is_back(
    tmp_path: Path, make_tiny_site: Callable[..., Any], tiny_vllm: Any, background: Any, webhook: Webhook
) -> None:
    site = make_tiny_site(serving={"reconcile_seconds": 0.5, "request_timeout_seconds": 3.0})
    await asyncio.to_thread(site.start, gateway=True)
    targets = {"tao-daemon": [site.control_url[7:]], "tao-gateway": [site.gateway_url[7:]]}
    async with alerting(tmp_path / "alertmanager", webhook.url) as alertmanager:
        config = configuration(targets, interval="1s", rules=quick_rules(tmp_path), alertmanagers=[alertmanager])
        async with scraping(tmp_path / "prometheus", config) as address:
            await until(lambda: query(address, "tao_serving_replica_reachable == 1"), 60, "the server to be seen")
            port = int(tiny_vllm.url.rpartition(":")[2])
            died = time.monotonic()
            os.kill(pid_that_listens(port), signal.SIGKILL)
            await until(lambda: told(webhook, "FIRING"), 60, "the webhook to hear of it")
            heard = time.monotonic() - died
            again = EmbeddedVllm(tiny_vllm.model, served_model_name="base", port=port, log_path=tmp_path / "vllm.log")
            # Left running for the tests that share this server.
            await asyncio.to_thread(background.enter, again)
            await until(lambda: told(webhook, "RESOLVED"), 60, "the webhook to hear that it is over")
    message = next(m["attachments"][0] for m in webhook.received if "Model server" in m["attachments"][0]["title"])
    assert "0 of 1 replicas answer the daemon." in message["text"]
    assert "docs/runbook.md#taomodelserverdown" in message["text"]
    assert heard < 30
    print(f"heard of it after {heard:.1f} s")


async def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.2)
    assert condition(), what
