"""Reads the dead-letter topic from its beginning, and decodes again what was refused before.

Invariants: nothing is committed, so every run sees every letter; a redriven prompt has the identifier of the record it
was, so that it is buffered once however often it is read; every wait has a deadline.

assign all partitions → seek to the oldest → poll until what was there is read → decode
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from tao_daemon.config import Kafka
from tao_daemon.domain.errors import RecordError, UpstreamError, UpstreamTimeout
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.intake.dead_letters import Origin, origin_of
from tao_daemon.intake.decoding import decode
from tao_daemon.intake.kafka_clients import Connect, close_consumer, connect_consumer

_REQUEST_SECONDS = 10.0
_POLL_MILLISECONDS = 500
_SILENT_SECONDS = 30.0
"""Letters are known to be there and none comes for so long: the broker does not serve them."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic."""

    origin: Origin
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    at: float
    """When it was written, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Failing:
    """A letter that still cannot be a prompt."""

    code: str


def read_letters(
    kafka: Kafka, *, since: float = 0.0, connect: Connect = connect_consumer
) -> Generator[Letter, None, None]:
    """Every letter of this daemon's topic written at `since` or later. Raises UpstreamError."""
    try:
        consumer = connect(kafka, _REQUEST_SECONDS)
    except (KafkaError, OSError) as error:
        raise UpstreamError(
            f"no broker answers at {', '.join(kafka.bootstrap_servers)} ({type(error).__name__}); "
            "check kafka.bootstrap_servers and its security settings"
        ) from None
    try:
        for record in _records(consumer, kafka.dead_letter_topic):
            letter = _letter(record)
            if letter and letter.origin.topic == kafka.topic and letter.at >= since:
                yield letter
    except (KafkaError, OSError) as error:
        raise UpstreamError(
            f"reading {kafka.dead_letter_topic} failed ({type(error).__name__}); run it again, nothing is read twice"
        ) from None
    finally:
        close_consumer(consumer)


def decode_letter(letter: Letter, *, max_bytes: int, now: float) -> Prompt | Failing:
    """The prompt that the record is by now, or what is wrong with it still."""
    if not letter.origin.is_whole:
        return Failing("dropped")
    source = Source(letter.origin.log, letter.origin.partition, letter.origin.offset)
    try:
        return decode(letter.value, letter.headers, source, min(letter.at, now), max_bytes=max_bytes)
    except RecordError as error:
        return Failing(error.code)


def _records(consumer: Any, topic: str) -> Iterator[Any]:
    """Up to what is there now, and what comes meanwhile."""
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    if not partitions:
        return
    consumer.assign(partitions)
    oldest, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    for partition in partitions:
        consumer.seek(partition, oldest[partition])
    heard = time.monotonic()
    while any(_position(consumer, each) < max(ends[each], consumer.highwater(each) or 0) for each in partitions):
        found = [record for batch in consumer.poll(timeout_ms=_POLL_MILLISECONDS).values() for record in batch]
        if found:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENT_SECONDS:
            raise UpstreamTimeout(
                f"{topic} has records that did not come within {_SILENT_SECONDS:g} s; look at the broker"
            )
        yield from found


def _position(consumer: Any, partition: TopicPartition) -> int:
    return int(consumer.position(partition, timeout_ms=int(_REQUEST_SECONDS * 1000)))


def _letter(record: Any) -> Letter | None:
    origin = origin_of(record.headers)
    if origin is None:
        return None
    return Letter(origin, record.value, tuple(record.headers), max(0.0, (record.timestamp or 0) / 1000.0))
