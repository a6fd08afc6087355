"""Sends requests to Kafka as they came, so that they become prompts. Never delays one.

Invariants: offering is one append to a bounded queue, or a counted drop; a thread of its own owns the producer; what
Kafka did not acknowledge is counted, never tried for ever. Nothing of a request is logged.

offered → waiting (bounded) → sent in batches → acknowledged | failed, and the producer made anew
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from kafka.errors import KafkaError

from tao_daemon.clients.kafka import close_producer, connect_producer
from tao_daemon.config import Config, Kafka
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.split import identity, place, within

log = logging.getLogger(__name__)

OPT_OUT_HEADER = "X-Tao-Capture"
"""`off` keeps a request out of Kafka, as `"store": false` in its body does."""
_SALT = "capture"
"""Not a rollout's: which conversations are captured says nothing about their arm."""
_REQUEST_SECONDS = 5.0
_LINGER_SECONDS = 0.05
"""How long the first prompt waits for more: the thread wakes once per batch, not once per request."""
_MAX_BATCH = 500
_RETRY_SECONDS = (0.2, 5.0)
"""Between attempts at a broker: doubled from the first to the second."""


class _Record(NamedTuple):
    value: bytes
    key: bytes | None
    headers: list[tuple[str, bytes]]


class Capture:
    """`offer` from the event loop, then `close` to flush."""

    def __init__(self, config: Config, meters: Meters, connect: Callable[[Kafka, float], Any] = connect_producer):
        gateway = config.gateway
        self._kafka = config.kafka
        self._connect = connect
        self._meters = meters
        self._limit = gateway.capture_queue
        self._fraction = gateway.capture_fraction
        self._max_bytes = config.buffer.max_prompt_bytes
        self._conversation_header = gateway.conversation_header
        self._headers = (
            ("tenant", gateway.tenant_header),
            ("conversation", gateway.conversation_header),
            ("subject", gateway.subject_header),
        )
        self._queue: SimpleQueue[_Record | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def offer(self, raw: bytes, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """Take a request (`raw`, parsed as `body`), unless its sender or the fraction says otherwise."""
        if body.get("store") is False or headers.get(OPT_OUT_HEADER, "").lower() == "off":
            return
        given = headers.get(self._conversation_header)
        if self._fraction < 1.0 and not within(self._fraction, place(_SALT, identity(given, body))):
            return
        # A larger one would only reach the dead letters; the limit bounds the queue's memory, too.
        if len(raw) > self._max_bytes:
            self._meters.capture_dropped["too_large"] += 1
            return
        waiting = self._queue.qsize()
        if waiting >= self._limit:
            self._meters.capture_dropped["full"] += 1
            return
        named = [(name, _bytes(headers[header])) for name, header in self._headers if header in headers]
        self._queue.put(_Record(raw, _bytes(given) if given else None, named))
        self._meters.capture_waiting = waiting + 1

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long at most."""
        self._stopping.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        if left := self._queue.qsize() - (1 if self._thread.is_alive() else 0):
            log.warning("captured prompts lost at the stop", extra={"prompts": max(0, left)})

    def _run(self) -> None:
        producer = None
        ended = False
        while not ended:
            batch, ended = self._next_batch()
            if batch:
                producer = self._deliver(producer, batch)
        if producer is not None:
            close_producer(producer)

    def _next_batch(self) -> tuple[list[_Record], bool]:
        """Waits for a record; then what else there is after a moment, and whether that was the last."""
        first = self._queue.get()
        if first is None:
            return [], True
        self._stopping.wait(_LINGER_SECONDS)
        batch = [first]
        try:
            while len(batch) < _MAX_BATCH:
                record = self._queue.get_nowait()
                if record is None:
                    return batch, True
                batch.append(record)
        except Empty:
            pass
        self._meters.capture_waiting = self._queue.qsize()
        return batch, False

    def _deliver(self, producer: Any, batch: list[_Record]) -> Any:
        """Send a batch; the producer to go on with, None after a failure."""
        producer = producer or self._connected()
        if producer is None:
            self._meters.capture_failed += len(batch)
            return None
        futures: list[Any] = []
        try:
            for value, key, headers in batch:
                futures.append(producer.send(self._kafka.topic, value=value, key=key, headers=headers))
            producer.flush(timeout=_REQUEST_SECONDS)
        except (KafkaError, OSError, ValueError) as error:
            log.warning("capture failed", extra={"error": type(error).__name__, "prompts": len(batch)})
        acknowledged = sum(bool(future.succeeded()) for future in futures)
        self._meters.acknowledged(acknowledged)
        if acknowledged == len(batch):
            return producer
        # After a broker lost its state a producer may never recover; a new one does.
        self._meters.capture_failed += len(batch) - acknowledged
        close_producer(producer)
        return None

    def _connected(self) -> Any:
        """A new producer, as soon as a broker answers; None when the gateway stops before."""
        wait, longest = _RETRY_SECONDS
        while True:
            try:
                return self._connect(self._kafka, _REQUEST_SECONDS)
            except (KafkaError, OSError) as error:
                log.warning(
                    "no Kafka broker for captured prompts; trying again",
                    extra={"brokers": list(self._kafka.bootstrap_servers), "error": type(error).__name__},
                )
            if self._stopping.wait(wait):
                return None
            wait = min(2 * wait, longest)


def _bytes(header: str) -> bytes:
    """As it was on the wire."""
    return header.encode(errors="surrogateescape")
