"""Reads prompts from Kafka into the buffer, on one thread, exactly once.

Invariants: what the buffer's table says is where reading goes on; dead letters are written before the batch that
carries their offsets; at most two batches are in memory, and no failure of Kafka or of the buffer ends the thread.
While one batch is in flight the next collects; when that is full too, the partitions are paused.

consuming ⇄ paused | buffer_failed | broker_unreachable → stopped
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

from tao_daemon.config import Kafka
from tao_daemon.domain.errors import PromptStoreError, RecordError
from tao_daemon.domain.ports import Clock, PromptStore
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import Emit, IntakeInterrupted, IntakeStateChanged, RecordsRejected
from tao_daemon.intake.backoff import backoff_seconds
from tao_daemon.intake.batching import Batch
from tao_daemon.intake.dead_letters import DeadLetter, dead_letter
from tao_daemon.intake.decoding import decode
from tao_daemon.intake.kafka_clients import Connect, connect_consumer, connect_producer
from tao_daemon.intake.kafka_session import KafkaSession, Reconnect
from tao_daemon.intake.positions import Position, Watchdog, source_topic
from tao_daemon.intake.submission import Submission

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.25
"""Longest single wait while all is well: how soon a stop is noticed."""
_CLOSING_SECONDS = 1.0
"""What a stop keeps back of its deadline for closing the clients."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Deadlines and intervals, in seconds."""

    request: float = 10.0
    """Deadline of one request to a broker."""
    check: float = 5.0
    """Between looks at lag and health; a silent broker is asked something."""
    stall: float = 5.0
    """How long the buffer may take for one batch while the next is full, before that counts as a pause."""
    stuck: float = 30.0
    """A partition with lag that has not moved for so long gets a new consumer."""
    truncation: float = 5.0
    """A log must end below our position for so long before it counts as cut off."""
    first_pause: float = 0.2
    longest_pause: float = 10.0


class KafkaSource:
    """`start()`, then `stop(seconds)`. `state` is for readiness; `finished` resolves when the thread ends."""

    def __init__(
        self,
        kafka: Kafka,
        store: PromptStore,
        *,
        max_prompt_bytes: int,
        emit: Emit,
        clock: Clock,
        seed: int = 0,
        timings: Timings = Timings(),
        connect: Connect = connect_consumer,
    ) -> None:
        self.finished: Future[None] = Future()
        """Set when the thread ends; an exception in it is a bug."""
        self._kafka = kafka
        self._store = store
        self._max_prompt_bytes = max_prompt_bytes
        self._emit = emit
        self._clock = clock
        self._seed = seed
        self._timings = timings
        self._connect = connect
        self._state = "stopped"
        self._detail = ""
        self._failures = 0
        self._stopping = threading.Event()
        self._deadline = math.inf
        self._submission = Submission(store, self._delay, self._stopping)
        self._rejected: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="tao-intake", daemon=True)

    @property
    def state(self) -> str:
        """One of the states of IntakeStateChanged."""
        return self._state

    @property
    def detail(self) -> str:
        """Why it is in that state, as of the latest try."""
        return self._detail

    def start(self) -> None:
        self.finished.set_running_or_notify_cancel()  # from here on whoever awaits it cannot cancel it
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """End after the batch in flight; True when that was done within the deadline. Blocks; idempotent."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._attempt()
            self._finish(None)
            self.finished.set_result(None)
        except BaseException as error:
            logger.exception("intake ended by a bug")
            self.finished.set_exception(error)
        finally:
            self._enter("stopped")

    def _attempt(self) -> None:
        """One session, until it is stopped or fails; then the pause before the next."""
        try:
            self._serve()
            return
        except Reconnect as reason:
            logger.info("new Kafka session", extra={"reason": str(reason)})
            self._emit(IntakeInterrupted("replaced"))
        except (KafkaError, OSError) as error:
            self._enter("broker_unreachable", f"{type(error).__name__}: {error}")
            self._emit(IntakeInterrupted("broker_unreachable"))
        except PromptStoreError as error:
            self._enter("buffer_failed", str(error))
            self._emit(IntakeInterrupted("buffer_failed"))
        self._failures += 1
        self._stopping.wait(self._delay(self._failures))

    def _serve(self) -> None:
        while self._submission.busy and not self._stopping.is_set():
            self._hold_back(None)
        if self._stopping.is_set():
            return
        stored = self._stored_positions()
        session = KafkaSession(
            self._kafka,
            connect=self._connect,
            connect_producer=connect_producer,
            request_seconds=self._timings.request,
            emit=self._emit,
        )
        try:
            batch = Batch(self._kafka.max_batch_records)
            session.place(stored, batch, time.monotonic())
            self._enter("consuming")
            self._consume(session, batch)
        finally:
            session.close()

    def _consume(self, session: KafkaSession, batch: Batch) -> None:
        watchdog = Watchdog(self._timings.stuck, self._timings.truncation)
        next_check = time.monotonic() + self._timings.check
        heard = time.monotonic()
        while not self._stopping.is_set():
            if self._submission.busy and (self._submission.failure or not batch.room):
                self._hold_back(session)
                watchdog.rest()
            elif self._read(session, batch):
                heard = time.monotonic()
            batch = self._hand_over(session, batch)
            if time.monotonic() >= next_check:
                self._look_after(session, batch, watchdog, silent=time.monotonic() - heard > self._timings.check)
                next_check = time.monotonic() + self._timings.check
        self._finish(session)

    def _read(self, session: KafkaSession, batch: Batch) -> bool:
        """Poll once; whether anything came."""
        before = batch.room
        try:
            for record in session.poll(self._patience(batch), batch.room):
                place = session.source(record.partition)
                item, size = self._decoded(record, place)
                batch.add(item, place=place, offset=record.offset, size=size, now=time.monotonic())
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            session.recover(error, batch, time.monotonic())
        return batch.room < before

    def _patience(self, batch: Batch) -> float:
        """How long a poll may wait: short when something else is due."""
        if self._submission.busy:
            return 0.05
        if batch.began is None:
            return _WAIT_SECONDS
        return min(_WAIT_SECONDS, max(0.0, batch.began + self._kafka.max_wait_seconds - time.monotonic()))

    def _decoded(self, record: Any, place: tuple[str, int]) -> tuple[Prompt | DeadLetter, int]:
        source = Source(place[0], place[1], record.offset)
        size = len(record.value or b"") + sum(len(raw or b"") for _, raw in record.headers)
        now, sent = self._clock(), (record.timestamp or -1) / 1000.0
        received_at = sent if 0.0 <= sent <= now else now  # a date in the future would make it the newest for ever
        try:
            prompt = decode(record.value, record.headers, source, received_at, max_bytes=self._max_prompt_bytes)
        except RecordError as error:
            letter = dead_letter(
                code=error.code,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                value=record.value,
                headers=record.headers,
                log=place[0],
            )
            return letter, size
        return prompt, size

    def _hand_over(self, session: KafkaSession, batch: Batch) -> Batch:
        """Take the result of the batch in flight, and send the next one when it is due."""
        if self._submission.busy:
            self._settle(session, timeout=0.0)
        if self._submission.busy or not batch.is_due(time.monotonic(), self._kafka.max_wait_seconds):
            return batch
        session.bury(batch.letters)
        self._rejected = batch.rejections()
        self._submission.begin(batch.ingest())
        return Batch(self._kafka.max_batch_records)

    def _settle(self, session: KafkaSession | None, *, timeout: float) -> bool:
        committed = self._submission.advance(timeout)
        if committed is None:
            return False
        self._failures = 0
        for code, count in self._rejected.items():
            self._emit(RecordsRejected(code, count))
        if session is not None:
            session.committed(committed.next_offsets)
            session.resume()
            self._enter("consuming")
        return True

    def _hold_back(self, session: KafkaSession | None) -> None:
        """Wait for the buffer; when that takes long or fails, pause the partitions and keep polling."""
        if self._settle(session, timeout=_WAIT_SECONDS):
            return
        if self._submission.failure:
            self._enter("buffer_failed", self._submission.failure)
        elif self._submission.age() < self._timings.stall:
            return
        else:
            self._enter("paused", f"the buffer has not taken a batch for {self._timings.stall:g} s")
        if session is not None:
            session.hold()
            for record in session.poll(0.0, 1):
                raise AssertionError(f"a paused partition gave offset {record.offset}")

    def _look_after(self, session: KafkaSession, batch: Batch, watchdog: Watchdog, *, silent: bool) -> None:
        now = time.monotonic()
        if silent:
            session.check()
            self._failures = 0
        views = session.views()
        session.measure_lag(views, pending=self._submission.busy or batch.began is not None)
        for partition in watchdog.truncated(now, views):
            session.begin_again(partition, views[partition].end or 0, batch, now)
        stuck = watchdog.stuck(now, views)
        if stuck:
            raise Reconnect(f"partitions {stuck} have lag and have not moved for {self._timings.stuck:g} s")

    def _stored_positions(self) -> Mapping[int, Position]:
        """The latest life of each partition that the buffer knows."""
        positions: dict[int, Position] = {}
        incarnation = 1
        while offsets := asyncio.run(self._next_offsets(source_topic(self._kafka.topic, incarnation))):
            positions |= {partition: Position(incarnation, offset) for partition, offset in offsets.items()}
            incarnation += 1
        return positions

    async def _next_offsets(self, topic: str) -> Mapping[int, int]:
        return await self._store.next_offsets(topic)

    def _finish(self, session: KafkaSession | None) -> None:
        """Stopping: wait for the batch in flight; what was only collected is read again next time."""
        if self._submission.busy and not self._submission.failure:
            self._settle(session, timeout=max(0.0, self._deadline - time.monotonic() - _CLOSING_SECONDS))

    def _delay(self, failures: int) -> float:
        timings = self._timings
        return backoff_seconds(failures, first=timings.first_pause, maximum=timings.longest_pause, seed=self._seed)

    def _enter(self, state: str, detail: str = "") -> None:
        self._detail = detail
        if state == self._state:
            return
        self._state = state
        logger.info("intake state", extra={"state": state, "detail": detail})
        self._emit(IntakeStateChanged(state, detail))
