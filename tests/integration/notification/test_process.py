"""The daemon as its users run it: told to a topic and a webhook, through `kill -9`, with nothing of a prompt."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

NEEDLE = "needle-5b1e90-secret-prompt"


class Receiver(ThreadingHTTPServer):
    """Remembers every body; outlives the daemon."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in list(self.bodies)]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(make_site: Callable[..., Any], receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Any:
    topic = f"events-{os.urandom(4).hex()}"
    hook = {"name": "hook", "url": "env:HOOK", "format": "cloudevents"}
    made = make_site(events={"source": "tao-process", "topic": topic, "webhooks": [hook]})
    made.config["round"] = {"min_new_prompts": 0}
    # Nothing listens there: every round fails, which is an event, too.
    made.config["serving"] = {"replicas": ["http://127.0.0.1:9"]}
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{receiver.server_port}/hook")
    return made


def of_topic(site: Any, count: int) -> list[dict[str, Any]]:
    consumer = KafkaConsumer(
        site.config["events"]["topic"],
        bootstrap_servers=site.config["kafka"]["bootstrap_servers"],
        auto_offset_reset="earliest",
        consumer_timeout_ms=4_000,
    )
    try:
        found = [json.loads(record.value) for _, record in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()
    return sorted(found, key=lambda event: event["data"]["journal"]["seq"])


def test_a_start_is_told_and_its_head_verifies(site: Any, receiver: Receiver, tmp_path: Path) -> None:
    site.start()
    site.wait(lambda: receiver.events(), 20, "the first event")
    (event,) = receiver.events()
    assert event["type"] == "io.tao-daemon.daemon.started"
    (same,) = of_topic(site, 1)
    assert same == event, "every sink is told the same, under the same id"
    published = tmp_path / "events.jsonl"
    published.write_text(json.dumps(event) + "\n")
    done = site.run("audit", "verify", "--events", str(published))
    assert done.returncode == 0, done.stderr
    assert "as 1 published heads say" in done.stdout


@pytest.mark.parametrize("sink", ["hook", "kafka"])
def test_killed_between_delivery_and_cursor_it_is_told_again_under_the_same_id(
    site: Any, receiver: Receiver, sink: str
) -> None:
    site.daemon.environment["TAO_KILL_AT"] = f"notified.{sink}"
    site.write_config()
    site.daemon.start()
    assert site.daemon.popen.wait(60) == 128 + signal.SIGKILL, site.daemon.tail()
    del site.daemon.environment["TAO_KILL_AT"]
    site.start()

    def told() -> list[dict[str, Any]]:
        found = receiver.events() if sink == "hook" else of_topic(site, 3)
        return found if len({event["id"] for event in found}) >= 2 else []

    events = site.wait(told, 40, "the second start")
    ids = [event["id"] for event in events]
    assert len(ids) == 3, "the first one twice"
    assert ids[0] == ids[1]
    assert events[0] == events[1]
    assert [event["data"]["journal"]["seq"] for event in events] == [1, 1, 2]


def test_no_prompt_text_in_any_event(site: Any, receiver: Receiver, produce: Any) -> None:
    texts = [f"{NEEDLE} {os.urandom(20).hex()}" for _ in range(40)]
    produce(
        site.config["kafka"]["topic"],
        [{"messages": [{"role": "user", "content": text}]} for text in texts] + [NEEDLE.encode()],
        headers=[("tenant", b"acme"), ("subject", b"jane@acme.test")],
    )
    site.config["round"] = {"min_new_prompts": 1, "prompts": 8, "outage_seconds": 0.5, "max_attempts": 1}
    site.config["gate"] = {"prompts": 1, "min_prompts": 1}
    site.config["scorers"] = [{"name": "any", "type": "regex", "pattern": NEEDLE}]
    site.start()

    def failed() -> bool:
        return any(event["type"].endswith("round.failed") for event in receiver.events())

    site.wait(failed, 60, "a round to fail")
    told = b"".join(receiver.bodies)
    for needle in (NEEDLE, "jane@acme.test"):
        assert needle.encode() not in told
        assert needle not in site.daemon.log.read_text()
