"""The whole loop on real parts: broker, buffer, vLLM, training child, gate, swap, gateway, undo."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

pytestmark = pytest.mark.vllm


@dataclass
class Client:
    """Asks the gateway under the public name without a pause, streams and not, and notes every answer."""

    url: str
    versions: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for stream in (True, False):
            thread = threading.Thread(target=self._ask_on, args=(stream,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def ask(self, stream: bool) -> str:
        body = {
            "model": "assistant",
            "messages": [{"role": "user", "content": f"Hello {next(self._numbers)}"}],
            "max_tokens": 8,
            "stream": stream,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
            version = response.headers.get_all("x-tao-version")
        assert version is not None
        assert len(version) == 1, "every answer names exactly one version"
        whole = text.rstrip().endswith("data: [DONE]") if stream else json.loads(text)["choices"]
        assert whole, "the answer is cut"
        return str(version[0])

    def _ask_on(self, stream: bool) -> None:
        while not self._stop.is_set():
            try:
                self.versions[self.ask(stream)] += 1
            except (OSError, AssertionError, ValueError) as error:
                self.errors.append(repr(error))
            time.sleep(0.2)


def test_a_round_makes_the_served_model_better_and_undo_takes_it_back(
    make_tiny_site: Callable[..., Any], produce: Any, random_prompts: Any
) -> None:
    site = make_tiny_site()
    site.start(gateway=True)
    client = Client(site.gateway_url)
    client.start()
    produce(site.config["kafka"]["topic"], random_prompts(480, seed=1))
    try:
        status = site.wait_status(
            lambda s: s["rollout"] and s["rollout"]["phase"] == "settled", 240, "an adapter to settle"
        )
        adapter = status["incumbent"]["adapter"]
        site.wait(lambda: client.ask(stream=True) == adapter, 10, "the gateway to serve the adapter")
        started = time.monotonic()
        undone = site.run("rollout", "undo", "--reason", "test")
        site.wait(lambda: client.ask(stream=False) == "base", 10, "the gateway to serve the base again")
        seconds = time.monotonic() - started
    finally:
        client.stop()
    assert client.errors == [], "no client saw an error through swap and undo"
    assert set(client.versions) >= {"base", adapter}
    rollout = json.loads(site.run("rollout", "history", "--json").stdout)[0]
    assert [step["phase"] for step in rollout["steps"]] == [
        "staged",
        "shadow",
        "canary",
        "baking",
        "settled",
        "rolled_back",
    ]
    assert undone.returncode == 0, undone.stderr
    # The command's own start is most of it; the flip itself takes milliseconds.
    assert seconds < 10
    number = f"{status['rollout']['round']:06d}"
    report = json.loads((site.root / "data" / "rounds" / number / "report.json").read_text())
    assert report["outcome"] == "accepted"
    assert report["verdict"]["numbers"]["difference_low"] > 0
    assert site.run("audit", "verify").returncode == 0


def test_an_undo_works_with_the_daemon_down(
    make_tiny_site: Callable[..., Any], produce: Any, random_prompts: Any
) -> None:
    site = make_tiny_site()
    site.start(gateway=True)
    client = Client(site.gateway_url)
    client.start()
    produce(site.config["kafka"]["topic"], random_prompts(480, seed=2))
    status = site.wait_status(
        lambda s: s["rollout"] and s["rollout"]["phase"] == "settled", 240, "an adapter to settle"
    )
    client.stop()
    site.wait(lambda: client.ask(stream=True) == status["incumbent"]["adapter"], 10, "the adapter to serve")
    site.daemon.kill()
    assert client.ask(stream=True) == status["incumbent"]["adapter"], "the gateway serves on without the daemon"
    undone = site.run("rollout", "undo", "--reason", "the daemon is down")
    assert undone.returncode == 0, undone.stderr
    site.wait(lambda: client.ask(stream=False) == "base", 15, "the gateway to read routes.json")
    site.daemon.start()
    after = site.wait_status(lambda s: True, 60, "the daemon to answer again")
    assert after["incumbent"]["adapter"] is None
    assert after["rollout"]["phase"] == "rolled_back"
    assert client.ask(stream=True) == "base"
