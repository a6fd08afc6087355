"""Undo, whatever else is broken: Kafka down, DuckDB stuck, a round running, the newest adapter's files deleted."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.past import settling
from bench.random_adapter import publish_random_adapters
from tao_daemon.app.paths import journal_path
from tao_daemon.app.settings import policy_of
from tao_daemon.config import load_config
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event
from tao_daemon.embedded.processes import free_port
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.registry.journal import Journal

pytestmark = pytest.mark.vllm

UNDO_SECONDS = 1.0


@pytest.fixture
def site(make_tiny_site: Callable[..., Any], tiny_vllm: Any, tmp_path: Path) -> Any:
    """A site whose journal says that two adapters have settled."""
    made = make_tiny_site()
    data = Path(made.config["daemon"]["data_dir"])
    data.mkdir(parents=True)
    store = DirectoryAdapterStore(data / "adapters", max_rank=16)
    made.adapters = publish_random_adapters(tiny_vllm.model, tmp_path, store, 2)
    config = load_config(made.write_config())
    journal, state = Journal(journal_path(config)), State()
    for event in [*settling(1, made.adapters[0]), *settling(2, made.adapters[1])]:
        state = apply_event(journal, state, event, policy_of(config), 1.0).state
    journal.close()
    return made


def ask(site: Any) -> str:
    """The version that answers a client."""
    body = {
        "model": "assistant",
        "messages": [{"role": "user", "content": f"Hello {time.monotonic()}"}],
        "max_tokens": 4,
    }
    request = urllib.request.Request(
        f"{site.gateway_url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.headers["x-tao-version"])


def generations(site: Any) -> list[int]:
    """Of the routes that each gateway uses."""
    request = urllib.request.Request(
        f"{site.control_url}/v1/gateways", headers={"Authorization": f"Bearer {site.token}"}
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return [each["generation"] for each in json.load(response)["gateways"]]


def undo(site: Any) -> float:
    """Seconds from asking until the gateway uses the version before; how long an answer then takes is the server's."""
    token = Path(site.config["daemon"]["data_dir"], "control.token").read_text()
    request = urllib.request.Request(
        f"{site.control_url}/v1/rollout/undo",
        json.dumps({"actor": "test", "reason": "test"}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    before = site.status()["incumbent"]["generation"]
    began = time.monotonic()
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200
    while min(generations(site)) <= before:
        assert time.monotonic() - began < 20, "the gateway never adopted the undo"
        time.sleep(0.005)
    seconds = time.monotonic() - began
    assert ask(site) == site.adapters[0]
    return seconds


def start(site: Any) -> None:
    site.start(gateway=True)
    site.wait(lambda: ask(site) == site.adapters[1], 60, "the second adapter to serve")


def test_with_kafka_down(site: Any) -> None:
    site.config["kafka"]["bootstrap_servers"] = [f"127.0.0.1:{free_port()}"]
    start(site)
    assert undo(site) < UNDO_SECONDS


def test_with_the_buffer_stuck(site: Any, produce: Any, random_prompts: Any) -> None:
    site.daemon.environment["TAO_HANG_AT"] = "buffer.ingest"
    start(site)
    produce(site.config["kafka"]["topic"], random_prompts(20, seed=5))
    site.wait_status(lambda s: s["buffer"] is None, 60, "the buffer to stop answering")
    assert undo(site) < UNDO_SECONDS


def test_with_a_round_running(site: Any, produce: Any, random_prompts: Any) -> None:
    start(site)
    produce(site.config["kafka"]["topic"], random_prompts(160, seed=6))
    site.wait_status(lambda s: s["round"] and s["round"]["phase"] in ("sampling", "training"), 120, "a round to run")
    assert undo(site) < UNDO_SECONDS
    ended = site.wait_status(lambda s: s["last_round"], 30, "the round to end")
    assert ended["last_round"]["outcome"] == "cancelled"


def test_with_the_newest_adapters_files_deleted(site: Any) -> None:
    start(site)
    shutil.rmtree(Path(site.config["daemon"]["data_dir"], "adapters", site.adapters[1]))
    assert undo(site) < UNDO_SECONDS
