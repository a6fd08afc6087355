"""Events on a real broker: CloudEvents in structured mode, through an outage of the broker."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from kafka import KafkaConsumer

from tao_daemon.clients.kafka import connect_producer
from tao_daemon.config import Kafka
from tao_daemon.domain.events import DaemonStarted
from tao_daemon.notification.cursor import Cursor
from tao_daemon.notification.kafka_topic import KafkaTopicSink
from tao_daemon.notification.notifier import Notifier, Pauses
from tao_daemon.registry.journal_reader import ReadOnlyJournal


def read(bootstrap: str, topic: str, count: int) -> list[Any]:
    """The first `count` records, in the order of the journal."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=4_000
    )
    try:
        records = [record for _, record in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()
    return sorted(records, key=lambda record: json.loads(record.value)["data"]["journal"]["seq"])


def notifier(teller: Any, kafka: Kafka, topic: str, connect: Any) -> Notifier:
    sink = KafkaTopicSink(kafka, topic, connect)
    return Notifier(
        sink,
        ReadOnlyJournal(teller.root / "control.db"),
        Cursor(teller.root / "notifications" / "kafka.json"),
        source="tao-test",
        types=("*",),
        emit=teller.signals.append,
        pauses=Pauses(0.02, 0.2),
    )


async def test_structured_cloud_events_keyed_by_subject(teller: Any, bootstrap: str, until: Any) -> None:
    topic = f"events-{os.urandom(4).hex()}"
    running = notifier(teller, Kafka(bootstrap_servers=(bootstrap,)), topic, connect_producer)
    task = asyncio.create_task(running.run())
    teller.append(DaemonStarted("1"))
    teller.flap(4)
    running.nudge()
    await until(lambda: teller.outcomes() == ["delivered"] * 5, "five deliveries")
    running.finish()
    await asyncio.wait_for(task, 5)
    records = await asyncio.to_thread(read, bootstrap, topic, 5)
    events = [json.loads(record.value) for record in records]
    assert [event["data"]["journal"]["seq"] for event in events] == [1, 2, 3, 4, 5]
    for record, event in zip(records, events, strict=True):
        assert record.headers == [("content-type", b"application/cloudevents+json; charset=UTF-8")]
        assert record.key.decode() == event["subject"]
        assert event["specversion"] == "1.0"


async def test_a_broker_that_is_away_is_waited_for(teller: Any, bootstrap: str, until: Any) -> None:
    """Until it answers, the daemon asks in vain, and no thread but the sink's own is held up."""
    topic, away = f"events-{os.urandom(4).hex()}", [True]

    def connect(kafka: Kafka, seconds: float) -> Any:
        servers = ("127.0.0.1:9",) if away[0] else (bootstrap,)
        return connect_producer(kafka.model_copy(update={"bootstrap_servers": servers}), 0.3)

    running = notifier(teller, Kafka(), topic, connect)
    task = asyncio.create_task(running.run())
    teller.flap(3)
    running.nudge()
    await until(lambda: teller.outcomes().count("failed") >= 2, "two attempts in vain")
    assert max(teller.lags()) == 3
    away[0] = False
    await until(lambda: teller.outcomes().count("delivered") == 3, "all three")
    task.cancel()
    records = await asyncio.to_thread(read, bootstrap, topic, 3)
    assert [json.loads(record.value)["data"]["journal"]["seq"] for record in records] == [1, 2, 3]
