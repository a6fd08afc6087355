"""The demo's two kinds of clients: a support desk that writes tickets to Kafka, and one that asks the gateway.

Invariants: a ticket counts as sent once the broker has acknowledged it; its text is found again by the prompt's id; a
question counts as answered only when the answer is whole, streams included. Both run until cancelled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

import aiohttp
from kafka import KafkaProducer
from kafka.errors import KafkaError

from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.prompt import Source
from tao_daemon.embedded.traffic import Ticket

VERSION_HEADER = "X-Tao-Version"
"""Response header of the gateway: which version answered."""

_TICK_SECONDS = 0.5
_SEND_SECONDS = 30.0
_QUESTION_TIMEOUT = aiohttp.ClientTimeout(total=300.0, sock_connect=5.0)


class TrafficError(TaoError):
    """The demo's own traffic could not be sent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Tickets per second: `first_rate` for the first `first` tickets, then `rate` for ever."""

    first: int
    first_rate: float
    rate: float

    def due(self, seconds: float) -> int:
        """Tickets that should have been sent this many seconds after the start."""
        quick = self.first / self.first_rate
        return int(seconds * self.first_rate if seconds < quick else self.first + (seconds - quick) * self.rate)


class TicketProducer:
    """Sends tickets to one topic and remembers which prompt each became."""

    def __init__(self, source: Iterator[Ticket], *, bootstrap: str, topic: str, pace: Pace) -> None:
        self.texts: dict[str, str] = {}
        """Ticket text by prompt id."""
        self._source = source
        self._bootstrap = bootstrap
        self._topic = topic
        self._pace = pace

    @property
    def sent(self) -> int:
        return len(self.texts)

    async def run(self) -> None:
        """Until cancelled. Raises TrafficError when the broker does not take the tickets."""
        try:
            producer = await asyncio.to_thread(self._connect)
            try:
                await self._keep_pace(producer)
            finally:
                # Cancelled or not: what is in flight no longer matters, the thread of the client does.
                await asyncio.shield(asyncio.to_thread(producer.close, timeout=1.0))
        except KafkaError as error:
            raise TrafficError(
                f"the broker at {self._bootstrap} does not take tickets ({type(error).__name__}); see broker.log"
            ) from error

    async def _keep_pace(self, producer: Any) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            missing = self._pace.due(clock() - started) - self.sent
            if missing > 0:
                await asyncio.to_thread(self._send, producer, list(islice(self._source, missing)))

    def _connect(self) -> Any:
        return KafkaProducer(bootstrap_servers=[self._bootstrap], client_id="tao-demo", acks="all", linger_ms=10)

    def _send(self, producer: Any, batch: list[Ticket]) -> None:
        futures = [
            producer.send(
                self._topic,
                value=json.dumps(ticket.request, ensure_ascii=False).encode(),
                key=ticket.conversation.encode(),
                headers=_headers(ticket),
            )
            for ticket in batch
        ]
        for ticket, future in zip(batch, futures, strict=True):
            record = future.get(timeout=_SEND_SECONDS)
            self.texts[Source(record.topic, record.partition, record.offset).prompt_id] = ticket.text


def _headers(ticket: Ticket) -> list[tuple[str, bytes]]:
    values = {"tenant": ticket.tenant, "conversation": ticket.conversation, "subject": ticket.subject}
    return [(name, value.encode()) for name, value in values.items()]


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What the gateway answered to one question. `version` is its own word for the model behind the name."""

    question: str
    answer: str
    version: str
    seconds: float


class LiveQuestions:
    """A few clients that each ask the public model one question after the other, with a pause between.

    Every second question is asked as a stream. Set `pause_seconds` while they run to have more or less traffic.
    """

    def __init__(self, source: Iterator[Ticket], *, gateway: str, clients: int, pause_seconds: float) -> None:
        self.pause_seconds = pause_seconds
        self.requests = 0
        self.errors = 0
        self.last_error = ""
        self.last: LiveAnswer | None = None
        self._source = source
        self._url = f"{gateway}/v1/chat/completions"
        self._clients = clients
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_QUESTION_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(self) -> None:
        """Until cancelled; an error is counted, and the next question is asked."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._ask_on())

    async def _ask_on(self) -> None:
        while True:
            await self.ask_next()
            waited = 0.0
            while waited < self.pause_seconds:
                await asyncio.sleep(_TICK_SECONDS)
                waited += _TICK_SECONDS

    async def ask_next(self) -> LiveAnswer | None:
        """One question, counted; None when it was not answered in full."""
        ticket = next(self._source)
        clock = asyncio.get_running_loop().time
        started = clock()
        self.requests += 1
        try:
            text, version = await self._answer(ticket.request, stream=self.requests % 2 == 0)
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            self.errors += 1
            self.last_error = f"{type(error).__name__}: {error}"
            return None
        self.last = LiveAnswer(ticket.text, text, version, clock() - started)
        return self.last

    async def _answer(self, request: dict[str, Any], *, stream: bool) -> tuple[str, str]:
        assert self._session is not None, "used outside `async with`"
        async with self._session.post(self._url, json={**request, "stream": stream}) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            version = response.headers.get(VERSION_HEADER, "")
            if not stream:
                return str((await response.json())["choices"][0]["message"]["content"]), version
            return streamed_text((await response.read()).decode()), version


def streamed_text(events: str) -> str:
    """The answer of a whole server-sent stream. Raises ValueError when it did not end properly."""
    data = [line.removeprefix("data:").strip() for line in events.splitlines() if line.startswith("data:")]
    if not data or data[-1] != "[DONE]":
        raise ValueError("the stream ended without [DONE]")
    chunks = [json.loads(item) for item in data[:-1]]
    if any("error" in chunk for chunk in chunks):
        raise ValueError("the stream holds an error")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)
