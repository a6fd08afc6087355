"""How the [kafka] section becomes settings of kafka-python, and how its clients are made and closed.

Invariants: a client that cannot be made leaves no thread behind; closing has a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from tao_daemon.config import Kafka

_MIB = 1024 * 1024


def connect_producer(kafka: Kafka, request_seconds: float) -> Any:
    """A producer, at least once. Raises KafkaError when no broker answers.

    Not idempotent: kafka-python's idempotent producer does not survive the loss of the broker's state.
    """
    milliseconds = int(request_seconds * 1000)
    return make_client(
        KafkaProducer,
        **common_settings(kafka, request_seconds),
        acks="all",
        enable_idempotence=False,
        delivery_timeout_ms=milliseconds,
        max_block_ms=milliseconds,
        max_request_size=64 * _MIB,
        metrics_enabled=False,
    )


def close_producer(producer: Any) -> None:
    """Close within a second; what is unsent by then is lost."""
    with suppress(KafkaError, OSError):
        producer.close(timeout=1)


def common_settings(kafka: Kafka, request_seconds: float) -> dict[str, Any]:
    """What consumers and producers share: where the brokers are, security, deadlines."""
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


def make_client(kind: Callable[..., Any], **settings: Any) -> Any:
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
