"""Makes the consumer that intake reads with, and names the producer for its dead letters.

Invariants: `auto_offset_reset` never decides; the consumer commits nothing by itself. Dead letters are at least once;
they carry the key to drop repeats by.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from tao_daemon.clients.kafka import close_producer, common_settings, connect_producer, make_client
from tao_daemon.config import Kafka

__all__ = ["Connect", "close_consumer", "close_producer", "connect_consumer", "connect_producer"]

Connect = Callable[[Kafka, float], Any]
"""Makes a client; the number is the deadline of its requests in seconds. kafka-python has no types."""

_MIB = 1024 * 1024


def connect_consumer(kafka: Kafka, request_seconds: float) -> Any:
    """A consumer for manual assignment. Raises KafkaError when no broker answers."""
    return make_client(
        KafkaConsumer,
        **common_settings(kafka, request_seconds),
        group_id=kafka.consumer_group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_bytes=16 * _MIB,
        metrics_enabled=False,
    )


def close_consumer(consumer: Any) -> None:
    with suppress(KafkaError, OSError):
        consumer.close(autocommit=False, timeout_ms=1000)
