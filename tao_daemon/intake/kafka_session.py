"""One connection to Kafka: a consumer placed where the buffer left off, and a producer for dead letters.

Invariants: positions come from the buffer's table alone; a jump is emitted as OffsetGapFound and becomes part of the
next batch, so that it is counted once.

connect → place → poll … → close; any KafkaError or `Reconnect` ends it, and the next session starts from the table
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from tao_daemon.config import Kafka
from tao_daemon.domain.signals import DeadLettersFailed, Emit, IntakeLagMeasured, OffsetGapFound
from tao_daemon.intake.batching import Batch
from tao_daemon.intake.dead_letters import DeadLetter
from tao_daemon.intake.kafka_clients import Connect, close_consumer, close_producer
from tao_daemon.intake.positions import Break, Position, View, plan_start, recover, source_topic

logger = logging.getLogger(__name__)


class Reconnect(Exception):
    """The session must be replaced, for a reason that is no fault of the broker."""


class KafkaSession:
    """Used by the intake thread only."""

    def __init__(
        self, kafka: Kafka, *, connect: Connect, connect_producer: Connect, request_seconds: float, emit: Emit
    ) -> None:
        self._kafka = kafka
        self._request_seconds = request_seconds
        self._connect_producer = connect_producer
        self._emit = emit
        self._producer: Any = None
        self._positions: dict[int, Position] = {}
        self._buffered: dict[int, int] = {}
        self._consumer = connect(kafka, request_seconds)

    def place(self, stored: Mapping[int, Position], batch: Batch, now: float) -> None:
        """Assign every partition and seek. What the buffer does not know yet goes into `batch`."""
        numbers = self._partitions()
        oldest = self._offsets(self._consumer.beginning_offsets, numbers)
        from_end = not stored and self._kafka.start == "latest"
        newest = self._offsets(self._consumer.end_offsets, numbers) if from_end else oldest
        plan = plan_start(stored, oldest, newest, start=self._kafka.start)
        self._consumer.assign([self._tp(number) for number in numbers])
        for number, position in plan.positions.items():
            self._go(number, position)
            self._buffered[number] = position.offset
        for number in plan.chosen:
            batch.move(self.source(number), plan.positions[number].offset, now=now)
        self._tell(plan.breaks)

    def source(self, number: int) -> tuple[str, int]:
        """The topic name and partition that records of a partition are kept under."""
        return source_topic(self._kafka.topic, self._positions[number].incarnation), number

    def poll(self, seconds: float, max_records: int) -> Iterator[Any]:
        """Records in the order of their offsets, per partition. Raises KafkaError."""
        for records in self._consumer.poll(timeout_ms=int(seconds * 1000), max_records=max_records).values():
            yield from records

    def recover(self, error: KafkaError, batch: Batch, now: float) -> None:
        """Go on after the broker said that it does not have the offsets we want."""
        if isinstance(error, LogTruncationError):
            for tp, point in error.divergent_offsets.items():
                diverged_at = None if point is None else point.offset
                self._go_on(tp.partition, self._end(tp.partition), batch, now, diverged_at=diverged_at)
        else:
            assert isinstance(error, OffsetOutOfRangeError)
            for tp in error.args[0]:
                self._go_on(tp.partition, self._end(tp.partition), batch, now)

    def hold(self) -> None:
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        self._consumer.resume(*self._consumer.paused())

    def views(self) -> dict[int, View]:
        return {
            tp.partition: View(self._consumer.position(tp, timeout_ms=1000), self._consumer.highwater(tp))
            for tp in self._consumer.assignment()
        }

    def begin_again(self, number: int, end: int, batch: Batch, now: float) -> None:
        """The log of a partition ends at `end`, below our position, and the broker does not call that an error."""
        self._go_on(number, end, batch, now)

    def check(self) -> None:
        """Ask the broker something. Raises KafkaError when it does not answer, Reconnect when partitions changed."""
        assigned = {tp.partition for tp in self._consumer.assignment()}
        self._offsets(self._consumer.beginning_offsets, sorted(assigned))
        known = self._consumer.partitions_for_topic(self._kafka.topic)
        if known and set(known) != assigned:
            raise Reconnect(f"topic {self._kafka.topic} now has {len(known)} partitions, not {len(assigned)}")

    def committed(self, next_offsets: Mapping[tuple[str, int], int]) -> None:
        """The buffer has these: tell the broker, for lag tools only, and whether it works or not."""
        offsets = {}
        for place, offset in next_offsets.items():
            number = place[1]
            if place == self.source(number):  # else it is of a log that has ended meanwhile
                self._buffered[number] = offset
                offsets[self._tp(number)] = OffsetAndMetadata(offset, "", -1)
        try:
            self._consumer.commit_async(offsets)
        except KafkaError as error:
            logger.debug("group commit failed", extra={"failure": type(error).__name__})

    def measure_lag(self, views: Mapping[int, View], *, pending: bool) -> None:
        """`pending`: records that were read are not in the buffer yet."""
        for number, view in views.items():
            if view.end is not None:
                # The markers of transactions have offsets and are never given out.
                known = self._buffered[number] if pending else max(self._buffered[number], view.position)
                behind = max(0, view.end - known)
                self._emit(IntakeLagMeasured(self._kafka.topic, number, behind))

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters and wait until the broker has them. Raises KafkaError."""
        try:
            self._bury(letters)
        except KafkaError:
            self._emit(DeadLettersFailed(len(letters)))
            raise

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        if letters and self._producer is None:
            self._producer = self._connect_producer(self._kafka, self._request_seconds)
        sent = [(letter, self._send(letter)) for letter in letters]
        for letter, delivery in sent:
            try:
                self._await(delivery)
            except MessageSizeTooLargeError:
                self._await(self._send(letter.without_value()))

    def close(self) -> None:
        close_consumer(self._consumer)
        if self._producer is not None:
            close_producer(self._producer)

    def _send(self, letter: DeadLetter) -> Any:
        topic = self._kafka.dead_letter_topic
        try:
            return self._producer.send(topic, value=letter.value, key=letter.key, headers=list(letter.headers))
        except MessageSizeTooLargeError:
            smaller = letter.without_value()
            return self._producer.send(topic, value=None, key=smaller.key, headers=list(smaller.headers))

    def _await(self, delivery: Any) -> None:
        delivery.get(timeout=self._request_seconds + 1)

    def _partitions(self) -> list[int]:
        """The topic's partitions; asking for the first one makes a broker that creates topics create it."""
        topic = self._kafka.topic
        if not self._consumer.partitions_for_topic(topic):
            self._consumer.assign([self._tp(0)])
            with suppress(KafkaError):
                self._offsets(self._consumer.beginning_offsets, [0])
        numbers = sorted(self._consumer.partitions_for_topic(topic))
        if not numbers:
            raise UnknownTopicOrPartitionError(f"topic {topic} does not exist and the broker did not create it")
        return numbers

    def _go(self, number: int, position: Position) -> None:
        self._positions[number] = position
        self._consumer.seek(self._tp(number), position.offset)

    def _go_on(self, number: int, end: int, batch: Batch, now: float, diverged_at: int | None = None) -> None:
        current = Position(self._positions[number].incarnation, self._consumer.position(self._tp(number)))
        oldest = self._offsets(self._consumer.beginning_offsets, [number])[number]
        position, missing = recover(current, oldest=oldest, end=end, diverged_at=diverged_at)
        self._go(number, position)
        self._buffered[number] = position.offset
        batch.move(self.source(number), position.offset, now=now)
        self._tell([Break(number, missing)])

    def _end(self, number: int) -> int:
        return self._offsets(self._consumer.end_offsets, [number])[number]

    def _tell(self, breaks: Sequence[Break]) -> None:
        for each in breaks:
            logger.error("records are gone", extra={"partition": each.partition, "missing": each.missing})
            self._emit(OffsetGapFound(self._kafka.topic, each.partition, each.missing))

    def _offsets(self, ask: Any, numbers: Sequence[int]) -> dict[int, int]:
        answer = ask([self._tp(number) for number in numbers], timeout_ms=int(self._request_seconds * 1000))
        return {tp.partition: offset for tp, offset in answer.items()}

    def _tp(self, number: int) -> Any:
        return TopicPartition(self._kafka.topic, number)
