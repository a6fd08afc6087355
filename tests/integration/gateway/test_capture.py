"""Capture into a real broker: requests arrive as they were sent, and no broker is no reason to wait."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from tao_daemon.domain.prompt import Source
from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.intake.decoding import decode

Start = Callable[..., Awaitable[Any]]
NOWHERE = "127.0.0.1:1"


def records(bootstrap: str, topic: str, count: int, seconds: float = 20.0) -> list[Any]:
    """What is in the topic, once there are `count` records."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    deadline, found = time.monotonic() + seconds, list[Any]()
    try:
        while not (partitions := consumer.partitions_for_topic(topic)):
            assert time.monotonic() < deadline, "no topic"
            time.sleep(0.1)
        consumer.assign([TopicPartition(topic, partition) for partition in partitions])
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records"
            for batch in consumer.poll(timeout_ms=200).values():
                found += batch
    finally:
        consumer.close()
    return found


def settings(bootstrap: str) -> dict[str, Any]:
    return {"kafka": {"bootstrap_servers": [bootstrap], "topic": f"t-{secrets.token_hex(4)}"}, "capture": True}


async def metric(gateway: Any, name: str, at_least: float, seconds: float = 20.0) -> float:
    async with asyncio.timeout(seconds):
        while (value := (await gateway.metrics())[f"tao_gateway_{name}"]) < at_least:
            await asyncio.sleep(0.05)
    return float(value)


async def test_a_request_arrives_as_it_was_sent_and_intake_takes_it(start_gateway: Start, bootstrap: str) -> None:
    options = settings(bootstrap)
    gateway = await start_gateway(**options)
    raw = '{ "model": "assistant", "messages": [{"role": "user", "content": "Grüße"}], "temperature": 0.50 }'.encode()
    headers = {"X-Tenant-Id": "acme", "X-Conversation-Id": "c-1", "X-Subject-Id": "s-1", "Authorization": "Bearer x"}
    async with gateway.session.post(f"{gateway.url}/v1/chat/completions", data=raw, headers=headers) as response:
        assert response.status == 200
    async with gateway.session.post(f"{gateway.url}/v1/completions", data=b'{"prompt": "Hello"}') as response:
        assert response.status == 200
    found = await asyncio.to_thread(records, bootstrap, options["kafka"]["topic"], 2)
    chat, plain = sorted(found, key=lambda record: -len(record.value))
    assert (chat.value, chat.key) == (raw, b"c-1")
    assert dict(chat.headers) == {"tenant": b"acme", "conversation": b"c-1", "subject": b"s-1"}
    assert (plain.value, plain.key, list(plain.headers)) == (b'{"prompt": "Hello"}', None, [])
    prompt = decode(chat.value, chat.headers, Source("t", 0, 0), 0.0, max_bytes=65_536)
    assert (prompt.tenant, prompt.conversation, prompt.subject) == ("acme", "c-1", "s-1")


async def test_what_asks_not_to_be_kept_or_is_too_large_or_refused_is_not(start_gateway: Start, bootstrap: str) -> None:
    options = settings(bootstrap)
    gateway = await start_gateway(**options, buffer={"max_prompt_bytes": 2000})
    for headers, extra in (
        ({}, {"store": False}),
        ({"X-Tao-Capture": "off"}, {}),
        ({}, {"user": "x" * 3000}),
        ({}, {"model": "another"}),
        ({}, {"seed": 1}),
    ):
        async with gateway.chat(headers=headers, **extra) as response:
            await response.read()
    found = await asyncio.to_thread(records, bootstrap, options["kafka"]["topic"], 1)
    assert [json.loads(record.value).get("seed") for record in found] == [1]
    assert await metric(gateway, "captured_prompts_total", 1) == 1
    assert await metric(gateway, 'capture_dropped_prompts_total{reason="too_large"}', 1) == 1


async def test_a_fraction_takes_whole_conversations(start_gateway: Start, bootstrap: str) -> None:
    options = settings(bootstrap)
    gateway = await start_gateway(**options, capture_fraction=0.5)
    for conversation in range(24):
        for _ in range(2):
            assert await gateway.version(f"c{conversation}") == "base"
    gateway.stop.set()
    await asyncio.wait_for(gateway.task, 10)
    found = await asyncio.to_thread(records, options["kafka"]["bootstrap_servers"][0], options["kafka"]["topic"], 2)
    keys = [record.key for record in found]
    assert 4 <= len(set(keys)) <= 20
    assert all(keys.count(key) == 2 for key in keys)


async def test_a_stop_sends_what_waits(start_gateway: Start, bootstrap: str) -> None:
    options = settings(bootstrap)
    gateway = await start_gateway(**options)
    await asyncio.gather(*(gateway.version() for _ in range(40)))
    gateway.stop.set()
    await asyncio.wait_for(gateway.task, 10)
    assert len(await asyncio.to_thread(records, bootstrap, options["kafka"]["topic"], 40)) == 40


async def test_without_a_broker_nothing_waits_and_what_does_not_fit_is_counted(
    start_gateway: Start, daemon: Any
) -> None:
    gateway = await start_gateway(**settings(NOWHERE), capture_queue=10, daemon_url=daemon.url)
    slowest = 0.0
    for _ in range(30):
        started = time.perf_counter()
        assert await gateway.version() == "base"
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.5
    metrics = await gateway.metrics()
    assert metrics['tao_gateway_capture_dropped_prompts_total{reason="full"}'] >= 10
    assert metrics["tao_gateway_capture_queue_prompts"] <= 10
    await daemon.report(lambda report: report["capture_dropped"] >= 10)
    started = time.perf_counter()
    gateway.stop.set()
    await asyncio.wait_for(gateway.task, 10)
    assert time.perf_counter() - started < 9.0


async def test_a_broker_that_lost_everything_heals(start_gateway: Start, tmp_path: Path) -> None:
    broker = EmbeddedBroker(log_path=tmp_path / "broker.log")
    await broker.start()
    try:
        options = settings(broker.bootstrap)
        gateway = await start_gateway(**options)
        assert await gateway.version() == "base"
        await metric(gateway, "captured_prompts_total", 1)
        await broker.stop()
        assert await gateway.version() == "base"
        await metric(gateway, "capture_failed_prompts_total", 1)
        await broker.start()
        before = await metric(gateway, "captured_prompts_total", 1)
        for number in range(3):
            async with gateway.chat(seed=number) as response:
                assert response.status == 200
        await metric(gateway, "captured_prompts_total", before + 3)
        found = await asyncio.to_thread(records, broker.bootstrap, options["kafka"]["topic"], 3)
        assert {json.loads(record.value).get("seed") for record in found} >= {0, 1, 2}
    finally:
        await broker.stop()
