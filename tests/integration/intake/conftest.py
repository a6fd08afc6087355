"""A broker that tests may stop, freeze and start again, and a source that reads from it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer

from tao_daemon.config import Kafka
from tao_daemon.domain.signals import Signal
from tao_daemon.embedded.broker import broker_binary
from tao_daemon.embedded.processes import free_port
from tao_daemon.intake.kafka_source import KafkaSource, Timings

QUICK = Timings(request=1.5, check=0.2, stall=0.3, stuck=20.0, truncation=0.5, first_pause=0.05, longest_pause=0.3)


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


class Broker:
    """Tansu with its memory: `start` after `stop` is an empty broker on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        url = f"tcp://{self.bootstrap}"
        options = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://t/"]
        self._process = subprocess.Popen(
            [broker_binary(), "broker", "--cluster-id", "t", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._accepts, "the broker")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def send(self, topic: str, values: list[Any], *, partition: int | None = None, headers: Any = None) -> None:
        """Values that are not bytes are sent as JSON; without a partition they are spread."""
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, enable_idempotence=False, linger_ms=5, max_request_size=16_000_000
        )
        try:
            for value in values:
                raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
                producer.send(topic, raw, key=None if raw else b"k", partition=partition, headers=headers or [])
            producer.flush(30)
        finally:
            producer.close(timeout=5)

    def read(self, topic: str, count: int) -> list[Any]:
        """The first `count` records of a topic."""
        consumer = KafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
        )
        try:
            return [record for _, record in zip(range(count), consumer, strict=False)]
        finally:
            consumer.close()

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@pytest.fixture
def broker() -> Iterator[Broker]:
    running = Broker()
    running.start()
    yield running
    running.stop()


class Signals(list[Signal]):
    """What was emitted, by type."""

    def of(self, kind: type) -> list[Any]:
        return [each for each in list(self) if isinstance(each, kind)]

    def states(self) -> list[str]:
        return [each.state for each in list(self) if type(each).__name__ == "IntakeStateChanged"]


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def topic() -> str:
    return f"prompts-{os.urandom(4).hex()}"


@pytest.fixture
def make_source(broker: Broker, signals: Signals, topic: str) -> Iterator[Callable[..., KafkaSource]]:
    """Builds started sources; keyword arguments of the [kafka] section, or of the source itself."""
    made: list[KafkaSource] = []

    def make(store: Any, *, timings: Timings = QUICK, connect: Any = None, **section: Any) -> KafkaSource:
        kafka = Kafka(
            **{
                "bootstrap_servers": (broker.bootstrap,),
                "topic": topic,
                "dead_letter_topic": f"{topic}.dead",
                "max_wait_seconds": 0.05,
                **section,
            }
        )
        options = {} if connect is None else {"connect": connect}
        source = KafkaSource(
            kafka, store, max_prompt_bytes=4096, emit=signals.append, clock=time.time, timings=timings, **options
        )
        made.append(source)
        source.start()
        return source

    yield make
    for source in made:
        assert source.stop(15), "the intake thread did not end"
        assert source.finished.exception(1) is None


@pytest.fixture
def wait() -> Callable[..., None]:
    return until


@pytest.fixture
def quick() -> Timings:
    return QUICK
