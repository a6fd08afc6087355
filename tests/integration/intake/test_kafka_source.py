"""The source against a real broker: what arrives, what is refused, and every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Ingest, Ingested
from tao_daemon.domain.signals import (
    IntakeLagMeasured,
    IntakeStateChanged,
    OffsetGapFound,
    PromptsBuffered,
    RecordsRejected,
)
from tao_daemon.intake import kafka_source
from tao_daemon.intake.kafka_clients import connect_consumer

Make = Callable[..., Any]
NEEDLE = "correct horse battery staple"


def request(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"question {number} {number * 7919}"}], "metadata": number}


class Recorder:
    """A store that keeps what it was given, in order, and can be told to stall or to fail."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.batches: list[Ingest] = []
        self.failures: list[Exception] = []
        self.stalled: list[tuple[Ingest, Future[Ingested]]] | None = None

    def submit(self, batch: Ingest) -> Future[Ingested]:
        if self.failures:
            refused: Future[Ingested] = Future()
            refused.set_exception(self.failures.pop())
            return refused
        if self.stalled is not None:
            later: Future[Ingested] = Future()
            self.stalled.append((batch, later))
            return later
        self.batches.append(batch)
        return self.inner.submit(batch)

    def flow(self) -> None:
        stalled, self.stalled = self.stalled or [], None
        for batch, future in stalled:
            self.batches.append(batch)
            future.set_result(self.inner.submit(batch).result())

    async def next_offsets(self, topic: str) -> Any:
        return await self.inner.next_offsets(topic)

    @property
    def numbers(self) -> list[int]:
        return [prompt.request["metadata"] for batch in list(self.batches) for prompt in batch.prompts]

    def places(self) -> Counter[tuple[str, int, int]]:
        sources = [prompt.source for batch in self.batches for prompt in batch.prompts]
        return Counter((s.topic, s.partition, s.offset) for s in sources)


@pytest.fixture
def store() -> Recorder:
    return Recorder()


def test_every_record_is_buffered_once_or_dead_lettered(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    bad = [b"", b"\xff", b"{", b"[1]", {"x": 1}, {"messages": []}, {"prompt": "x" * 5000}, {"prompt": "a\x00"}]
    broker.send(topic, [request(i) for i in range(300)], headers=[("tenant", b"acme"), ("conversation", b"7")])
    broker.send(topic, bad, headers=[("tenant", b"acme"), ("x-big", b"y" * 9000)])
    broker.send(topic, [request(i) for i in range(300, 400)])
    source = make_source(store, max_batch_records=64)
    wait(lambda: len(store.numbers) == 400, "400 prompts")
    wait(lambda: sum(each.count for each in signals.of(RecordsRejected)) == 8, "8 rejections")
    assert sorted(store.numbers) == list(range(400))
    assert source.state == "consuming"
    codes = Counter({each.code: each.count for each in signals.of(RecordsRejected)})
    letters = broker.read(f"{topic}.dead", 8)
    told = Counter(dict(letter.headers)["tao-reason"].decode() for letter in letters)
    assert set(told) == {
        "empty",
        "not_utf8",
        "not_json",
        "not_object",
        "no_prompt",
        "bad_messages",
        "too_large",
        "bad_text",
    }
    assert set(codes) == set(told)
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["tao-source-topic"].decode() == topic
        assert "x-big" not in headers, "headers beyond the bound are dropped"
        where = f"{topic}-{headers['tao-source-partition'].decode()}-{headers['tao-source-offset'].decode()}"
        assert letter.key.decode() == where
    one = next(p for batch in store.batches for p in batch.prompts)
    assert (one.tenant, one.conversation) == ("acme", "7")
    offsets = asyncio.run(store.next_offsets(topic))
    assert sum(offsets.values()) == 408
    wait(
        lambda: {s.partition: s.records for s in signals.of(IntakeLagMeasured)} == dict.fromkeys(range(4), 0), "no lag"
    )


def test_the_marker_of_a_transaction_is_no_lag(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder, signals: Any
) -> None:
    """It has an offset, and no consumer gets it."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic, max_block_ms=20_000)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, json.dumps(request(1)).encode(), partition=0).get(20)
    producer.commit_transaction()
    producer.close(5)
    make_source(store)
    wait(lambda: store.numbers == [1], "the prompt")
    wait(
        lambda: {s.partition: s.records for s in signals.of(IntakeLagMeasured)} == dict.fromkeys(range(4), 0), "no lag"
    )


def test_a_restart_goes_on_where_the_store_is(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(100)])
    first = make_source(store)
    wait(lambda: len(store.numbers) == 100, "100 prompts")
    assert first.stop(10)
    assert first.state == "stopped"
    broker.send(topic, [request(i) for i in range(100, 150)])
    make_source(store)
    wait(lambda: len(store.numbers) == 150, "150 prompts")
    assert set(store.places().values()) == {1}


def test_latest_skips_what_is_there_and_is_remembered(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder
) -> None:
    for number in range(8):  # one record per batch: this broker's end_offsets() is short by a batch
        broker.send(topic, [request(number)], partition=0)
    source = make_source(store, start="latest")
    wait(lambda: asyncio.run(store.next_offsets(topic)) == {0: 8, 1: 0, 2: 0, 3: 0}, "the position to be written")
    assert source.stop(10)
    broker.send(topic, [request(100)], partition=0)
    make_source(store, start="latest")
    wait(lambda: store.numbers == [100], "the record in between")


def test_a_dead_letter_too_large_to_send_arrives_without_its_value(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder, monkeypatch: Any
) -> None:
    small = lambda kafka, seconds: KafkaProducer(  # noqa: E731
        bootstrap_servers=broker.bootstrap, enable_idempotence=False, max_request_size=1_000_000
    )
    monkeypatch.setattr(kafka_source, "connect_producer", small)
    broker.send(topic, [b"x" * 3_000_000, b"y" * 5000, request(1)], partition=0)
    make_source(store)
    wait(lambda: store.numbers == [1], "the record behind the large ones")
    letters = {letter.key: letter for letter in broker.read(f"{topic}.dead", 2)}
    large, fitting = letters[f"{topic}-0-0".encode()], letters[f"{topic}-0-1".encode()]
    assert large.value is None
    assert dict(large.headers)["tao-reason"] == b"too_large"
    assert dict(large.headers)["tao-dropped-bytes"] == b"3000000"
    assert fitting.value == b"y" * 5000


class Retained:
    """The real consumer on a log whose oldest records were deleted, which the test's broker cannot do."""

    def __init__(self, consumer: Any, oldest: dict[int, int]) -> None:
        self._consumer = consumer
        self._oldest = oldest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def beginning_offsets(self, partitions: Any, timeout_ms: Any = None) -> Any:
        found = self._consumer.beginning_offsets(partitions, timeout_ms=timeout_ms)
        return {tp: max(offset, self._oldest.get(tp.partition, 0)) for tp, offset in found.items()}

    def poll(self, *args: Any, **kwargs: Any) -> Any:
        for tp in self._consumer.assignment():
            position = self._consumer.position(tp)
            if position < self._oldest.get(tp.partition, 0):
                raise OffsetOutOfRangeError({tp: position})
        return self._consumer.poll(*args, **kwargs)


def test_a_gap_at_the_start_is_counted_and_read_over_once(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(30)], partition=0)
    store.inner.submit(Ingest((), {(topic, 0): 5}))
    oldest = {0: 20}
    connect = lambda kafka, seconds: Retained(connect_consumer(kafka, seconds), oldest)  # noqa: E731
    source = make_source(store, connect=connect)
    wait(lambda: len(store.numbers) == 10, "what is left")
    assert store.numbers == list(range(20, 30))
    assert signals.of(OffsetGapFound) == [OffsetGapFound(topic, 0, 15)]
    assert source.stop(10)
    make_source(store, connect=connect)
    wait(lambda: signals.states().count("consuming") == 2, "the second start")
    assert len(signals.of(OffsetGapFound)) == 1


def test_a_gap_that_opens_while_reading_is_counted(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(10)], partition=2)
    oldest: dict[int, int] = {}
    make_source(store, connect=lambda kafka, seconds: Retained(connect_consumer(kafka, seconds), oldest))
    wait(lambda: len(store.numbers) == 10, "the first ten")
    oldest[2] = 25
    wait(lambda: signals.of(OffsetGapFound), "the gap")
    broker.send(topic, [request(i) for i in range(10, 40)], partition=2)
    wait(lambda: store.numbers[10:] == list(range(25, 40)), "what is left")
    assert signals.of(OffsetGapFound) == [OffsetGapFound(topic, 2, 15)]


def test_a_broker_that_lost_its_log_is_read_again_from_the_start(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(60)], partition=0)
    make_source(store)
    wait(lambda: len(store.numbers) == 60, "the first life")
    broker.stop()
    wait(lambda: "broker_unreachable" in signals.states(), "the outage to be noticed")
    broker.start()
    broker.send(topic, [request(i) for i in range(100, 110)], partition=0)
    wait(lambda: len(store.numbers) == 70, "the second life")
    assert store.numbers[60:] == list(range(100, 110))
    assert OffsetGapFound(topic, 0, 50) in signals.of(OffsetGapFound)
    assert store.places()[(f"{topic}~2", 0, 0)] == 1
    broker.send(topic, [request(110)], partition=0)
    wait(lambda: store.numbers[-1] == 110, "the second life goes on")
    assert asyncio.run(store.next_offsets(f"{topic}~2"))[0] == 11


def test_a_broker_that_is_down_at_first_is_waited_for(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    broker.stop()
    threads = threading.active_count()
    source = make_source(store)
    wait(lambda: source.state == "broker_unreachable", "the outage to be noticed")
    wait(lambda: source._failures >= 4, "four tries")
    told = [signal for signal in signals if isinstance(signal, IntakeStateChanged)]
    assert [signal.state for signal in told].count("broker_unreachable") == 1, "an outage is told once"
    assert threading.active_count() <= threads + 3, "each try leaves nothing behind"
    broker.start()
    wait(lambda: source.state == "consuming", "the broker to be found, and the topic to be created")
    broker.send(topic, [request(1)])
    wait(lambda: store.numbers == [1], "the first record")


def test_a_topic_that_cannot_be_had_is_named(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder
) -> None:
    def connect(kafka: Any, seconds: float) -> Any:
        consumer = connect_consumer(kafka, seconds)
        consumer.partitions_for_topic = lambda name: set()
        return consumer

    source = make_source(store, connect=connect)
    wait(lambda: source.state == "broker_unreachable", "the refusal")
    assert f"topic {topic} does not exist" in source.detail


def test_awaiting_its_end_from_a_loop_cannot_break_it(make_source: Make, store: Recorder) -> None:
    source = make_source(store)

    async def give_up() -> None:
        waiting = asyncio.wrap_future(source.finished)
        waiting.cancel()
        await asyncio.sleep(0)

    asyncio.run(give_up())
    assert source.stop(15)
    assert source.finished.exception(1) is None


def test_a_broker_that_hangs_is_noticed_and_nothing_is_lost(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(20)])
    source = make_source(store)
    wait(lambda: len(store.numbers) == 20, "the first records")
    broker.freeze()
    wait(lambda: source.state == "broker_unreachable", "the silence to be noticed")
    broker.thaw()
    broker.send(topic, [request(i) for i in range(20, 40)])
    wait(lambda: len(store.numbers) == 40, "the rest")
    assert set(store.places().values()) == {1}
    assert signals.of(OffsetGapFound) == []


def test_dead_letters_wait_for_the_broker_and_so_does_their_batch(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder, monkeypatch: Any
) -> None:
    """The batch that carries the offset of a bad record is not handed over before the dead letter is written."""
    order: list[str] = []
    real = kafka_source.KafkaSession.bury

    def bury(self: Any, letters: Any) -> None:
        if letters and not order:
            order.append("broker down")
            broker.stop()
        real(self, letters)
        if letters:
            order.append("buried")

    monkeypatch.setattr(kafka_source.KafkaSession, "bury", bury)
    broker.send(topic, [b"bad", request(1)], partition=0)
    make_source(store)
    wait(lambda: order == ["broker down"] and "broker_unreachable" in signals.states(), "the failure")
    assert store.batches == []
    broker.start()
    broker.send(topic, [b"bad", request(1)], partition=0)
    wait(lambda: store.numbers == [1], "the record")
    assert order == ["broker down", "buried"]


def test_a_stalled_store_pauses_intake_within_two_batches(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(1000)], partition=0)
    store.stalled = []
    polled: list[int] = []

    def counting(kafka: Any, seconds: float) -> Any:
        consumer = connect_consumer(kafka, seconds)
        poll = consumer.poll

        def counted(*args: Any, **kwargs: Any) -> Any:
            records = poll(*args, **kwargs)
            polled.append(sum(map(len, records.values())))
            return records

        consumer.poll = counted
        return consumer

    source = make_source(store, max_batch_records=100, connect=counting)
    wait(lambda: source.state == "paused", "the pause")
    polls = len(polled)
    wait(lambda: len(polled) > polls + 3, "polling to go on")
    assert sum(polled) == 200
    assert len(store.stalled) == 1
    store.flow()
    wait(lambda: len(store.numbers) == 1000, "all of them")
    assert store.numbers == list(range(1000))
    assert source.state == "consuming"
    assert signals.states() == ["consuming", "paused", "consuming"]


def test_a_failing_store_gets_the_same_batch_again(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder
) -> None:
    store.failures = [OSError("no"), PromptStoreError("12 MiB free"), PromptStoreError("12 MiB free")]
    broker.send(topic, [request(i) for i in range(200)])
    source = make_source(store, max_batch_records=50)
    wait(lambda: len(store.numbers) == 200, "all of them")
    assert sorted(store.numbers) == list(range(200))
    assert source.state == "consuming"
    assert "buffer_failed" in signals.states()
    assert any("12 MiB free" in each.detail for each in signals.of(IntakeStateChanged))


def test_stop_finishes_the_batch_in_flight(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder
) -> None:
    broker.send(topic, [request(i) for i in range(10)], partition=0)
    store.stalled = []
    source = make_source(store)
    wait(lambda: store.stalled, "a batch in flight")
    stopping = threading.Thread(target=source.stop, args=(10,))
    stopping.start()
    store.flow()
    stopping.join(10)
    assert source.state == "stopped"
    assert store.numbers == list(range(10))[: len(store.numbers)]
    assert store.numbers


def test_new_partitions_are_picked_up(broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder) -> None:
    for partition in range(4):
        broker.send(topic, [request(partition)], partition=partition)
    visible = {0}

    def connect(kafka: Any, seconds: float) -> Any:
        consumer = connect_consumer(kafka, seconds)
        everything = consumer.partitions_for_topic
        consumer.partitions_for_topic = lambda name: everything(name) & visible
        return consumer

    make_source(store, start="latest", connect=connect)
    wait(lambda: asyncio.run(store.next_offsets(topic)), "the position")
    visible.update({1, 2, 3})
    wait(lambda: {1, 2, 3} <= set(store.numbers), "the new partitions from their beginning")


class Frozen:
    """The real consumer, whose first incarnation stops giving records although there are some."""

    made = 0

    def __init__(self, consumer: Any) -> None:
        Frozen.made += 1
        self._consumer = consumer
        self._stuck = Frozen.made == 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def highwater(self, tp: TopicPartition) -> Any:
        return 5 if self._stuck else self._consumer.highwater(tp)

    def poll(self, *args: Any, **kwargs: Any) -> Any:
        return {} if self._stuck else self._consumer.poll(*args, **kwargs)


def test_a_stuck_partition_gets_a_new_consumer(
    broker: Any, make_source: Make, topic: str, wait: Make, store: Recorder, quick: Any
) -> None:
    broker.send(topic, [request(i) for i in range(5)], partition=0)
    make_source(
        store,
        timings=replace(quick, stuck=0.6),
        connect=lambda kafka, seconds: Frozen(connect_consumer(kafka, seconds)),
    )
    wait(lambda: len(store.numbers) == 5, "the records")
    assert Frozen.made == 2


def test_no_prompt_text_leaves_by_another_way(
    broker: Any, make_source: Make, signals: Any, topic: str, wait: Make, store: Recorder, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG, logger="tao_daemon")
    store.failures = [PromptStoreError("no room")]
    broker.send(topic, [NEEDLE.encode(), {"messages": [{"role": NEEDLE}]}, {**request(1), "user": NEEDLE}], partition=0)
    make_source(store)
    wait(lambda: store.numbers == [1], "the good one")
    wait(lambda: signals.of(PromptsBuffered) or len(signals.of(RecordsRejected)) == 2, "the others")
    assert NEEDLE not in caplog.text + str(list(signals))
