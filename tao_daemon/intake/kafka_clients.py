"""Makes kafka-python clients from the configuration, and closes them within a deadline.

Invariants: `auto_offset_reset` never decides; the consumer commits nothing by itself; a client that cannot be made
leaves no thread behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from tao_daemon.config import Kafka

logger = logging.getLogger(__name__)

Connect = Callable[[Kafka, float], Any]
"""Makes a client; the number is the deadline of its requests in seconds. kafka-python has no types."""

_MIB = 1024 * 1024


def connect_consumer(kafka: Kafka, request_seconds: float) -> Any:
    """A consumer for manual assignment. Raises KafkaError when no broker answers."""
    return _make(
        KafkaConsumer,
        **_common(kafka, request_seconds),
        group_id=kafka.consumer_group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_bytes=16 * _MIB,
        metrics_enabled=False,
    )


def connect_producer(kafka: Kafka, request_seconds: float) -> Any:
    """A producer for dead letters, at least once. Raises KafkaError when no broker answers.

    Not idempotent: kafka-python's idempotent producer does not survive the loss of the broker's state, and dead
    letters carry the key to drop repeats by.
    """
    milliseconds = int(request_seconds * 1000)
    return _make(
        KafkaProducer,
        **_common(kafka, request_seconds),
        acks="all",
        enable_idempotence=False,
        delivery_timeout_ms=milliseconds,
        max_block_ms=milliseconds,
        max_request_size=64 * _MIB,
        metrics_enabled=False,
    )


def close_consumer(consumer: Any) -> None:
    with suppress(KafkaError, OSError):
        consumer.close(autocommit=False, timeout_ms=1000)


def close_producer(producer: Any) -> None:
    with suppress(KafkaError, OSError):
        producer.close(timeout=1)


def _common(kafka: Kafka, request_seconds: float) -> dict[str, Any]:
    milliseconds = int(request_seconds * 1000)
    password = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
    return {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "client_id": "tao-daemon",
        "request_timeout_ms": milliseconds,
        "bootstrap_timeout_ms": milliseconds,
        "metadata_max_age_ms": 30_000,
        "reconnect_backoff_max_ms": 2_000,
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": password,
        "ssl_cafile": str(kafka.ssl_cafile) if kafka.ssl_cafile else None,
    }


def _make(kind: Callable[..., Any], **settings: Any) -> Any:
    """kafka-python starts its I/O thread in the constructor and forgets it when the constructor then fails."""
    started: list[Any] = []

    def network(**options: Any) -> Any:
        client = KafkaNetClient(**options)
        started.append(client)
        return client

    try:
        return kind(kafka_client=network, **settings)
    except BaseException:
        for client in started:
            client.close()
        raise
