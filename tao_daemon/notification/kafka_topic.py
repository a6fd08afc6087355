"""Events into a Kafka topic: CloudEvents in structured content mode, keyed by subject, which keeps its order.

Invariants: one thread of its own does all blocking calls; after any failure the producer is made anew; at least once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka.errors import KafkaError, MessageSizeTooLargeError

from tao_daemon.clients.kafka import close_producer, connect_producer
from tao_daemon.config import Kafka
from tao_daemon.notification.cloud_event import CONTENT_TYPE, CloudEvent, encode
from tao_daemon.notification.sinks import Refused, Undelivered

KAFKA_SINK = "kafka"
_REQUEST_SECONDS = 3.0


class KafkaTopicSink:
    """A `Sink` for [events] topic."""

    def __init__(self, kafka: Kafka, topic: str, connect: Callable[[Kafka, float], Any] = connect_producer) -> None:
        self.name = KAFKA_SINK
        self._kafka = kafka
        self._topic = topic
        self._connect = connect
        self._producer: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notify-kafka")

    async def deliver(self, event: CloudEvent) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._send, event)

    async def close(self) -> None:
        """Does not wait: what blocks has a deadline of its own."""
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    def _send(self, event: CloudEvent) -> None:
        headers = [("content-type", CONTENT_TYPE.encode())]
        try:
            self._producer = self._producer or self._connect(self._kafka, _REQUEST_SECONDS)
            sending = self._producer.send(
                self._topic, value=encode(event), key=str(event["subject"]).encode(), headers=headers
            )
            sending.get(timeout=_REQUEST_SECONDS)
        except MessageSizeTooLargeError as error:
            raise Refused(f"topic {self._topic} takes no event of this size") from error
        except (KafkaError, OSError) as error:
            # After a broker lost its state a producer may never recover; a new one does.
            self._disconnect()
            raise Undelivered(f"topic {self._topic} cannot be written to ({type(error).__name__})") from error

    def _disconnect(self) -> None:
        if self._producer is not None:
            close_producer(self._producer)
            self._producer = None
