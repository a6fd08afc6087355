"""Which replica gets a request when one of two gives no answer: few clients pay for finding out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway import upstreams
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import plan
from tao_daemon.gateway.upstreams import Ask, Upstreams

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BASE = plan(Routes(1, None), "base")


class Replica:
    """Answers, or accepts and says nothing, or drops what wants to connect."""

    def __init__(self) -> None:
        self.hangs = False
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.partition(b":")[2]))
                self.requests += 1
                if self.hangs:
                    await reader.read()  # until the gateway has had enough
                    break
                writer.write(ANSWER)
        writer.close()


@asynccontextmanager
async def listening(replica: Replica) -> AsyncIterator[str]:
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


@asynccontextmanager
async def unanswered() -> AsyncIterator[str]:
    """An address where connecting takes for ever, as behind a dead host: the queue of who waits there is full."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        host, port = deaf.getsockname()
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            with suppress(BlockingIOError):
                waiting[-1].connect((host, port))
        await asyncio.sleep(0.1)
        yield f"http://{host}:{port}"
        for each in waiting:
            each.close()


def ask(upstream: Upstreams, *, seconds: float = 30.0, stream: bool = True) -> Awaitable[None]:
    """One request; raises what the caller would be told."""

    async def whole() -> None:
        until = asyncio.get_running_loop().time() + seconds
        body = {"messages": [], "stream": stream}
        raw = b'{"messages": [], "stream": true}' if stream else b'{"messages": []}'
        async with asyncio.timeout_at(until):
            wanted = Ask("/v1/chat/completions", raw, body, {}, BASE.incumbent, BASE.unready, "base", until=until)
            answer = await upstream.answer(wanted)
            try:
                await answer.response.read()
            finally:
                answer.close()

    return asyncio.create_task(whole())


async def at_once(upstream: Upstreams, count: int) -> list[object]:
    return list(await asyncio.gather(*(ask(upstream) for _ in range(count)), return_exceptions=True))


@pytest.fixture
async def two() -> AsyncIterator[Callable[[str, str], Upstreams]]:
    async with AsyncExitStack() as stack:

        def make(*urls: str) -> Upstreams:
            made = Upstreams(urls, None, Meters("test", lambda: 0.0))
            stack.callback(made.close)
            return made

        yield make


async def test_one_request_at_a_time_tries_a_host_that_is_dead(
    two: Callable[[str, str], Upstreams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(upstreams, "_REST_SECONDS", 0.2)
    good = Replica()
    async with listening(good) as url, unanswered() as dead:
        upstream = two(url, dead)
        await at_once(upstream, 4)
        await asyncio.sleep(0.4)  # it has rested
        clock = asyncio.get_running_loop().time
        began, waited = clock(), []

        async def timed() -> None:
            await ask(upstream)
            waited.append(clock() - began > 0.9)

        await asyncio.gather(*(timed() for _ in range(20)))
    assert sum(waited) == 1
    assert good.requests == 24, "every client has its answer"


async def test_a_replica_that_hangs_rests_and_is_taken_back_when_it_answers(
    two: Callable[[str, str], Upstreams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(upstreams, "_REST_SECONDS", 0.2)
    good, bad = Replica(), Replica()
    bad.hangs = True
    async with listening(good) as here, listening(bad) as there:
        upstream = two(here, there)
        assert any(isinstance(each, UpstreamTimeout) for each in await at_once(upstream, 4))
        assert await at_once(upstream, 20) == [None] * 20
        await asyncio.sleep(0.4)
        again = await at_once(upstream, 20)
        assert sum(isinstance(each, UpstreamTimeout) for each in again) == 1
        assert again.count(None) == 19
        bad.hangs = False
        await asyncio.sleep(0.6)  # twice the first rest, and more
        known = bad.requests
        assert await at_once(upstream, 1) == [None]
        assert await at_once(upstream, 20) == [None] * 20
        assert bad.requests >= known + 10, "it has its share again"


async def test_a_whole_answer_that_never_comes_makes_it_rest_too(two: Callable[[str, str], Upstreams]) -> None:
    good, bad = Replica(), Replica()
    bad.hangs = True
    async with listening(good) as here, listening(bad) as there:
        upstream = two(there, here)
        ended = await asyncio.gather(
            *(ask(upstream, seconds=0.5, stream=False) for _ in range(2)), return_exceptions=True
        )
        assert sum(isinstance(each, TimeoutError) for each in ended) == 1
        assert await at_once(upstream, 10) == [None] * 10


async def test_a_client_that_leaves_says_nothing_of_the_replica(two: Callable[[str, str], Upstreams]) -> None:
    good, bad = Replica(), Replica()
    good.hangs = bad.hangs = True
    async with listening(good) as here, listening(bad) as there:
        upstream = two(here, there)
        asked = [asyncio.ensure_future(ask(upstream)) for _ in range(4)]
        await asyncio.sleep(0.3)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        good.hangs = bad.hangs = False
        assert await at_once(upstream, 20) == [None] * 20
        assert min(good.requests, bad.requests) >= 2 + 8, "neither rests"


async def test_nobody_is_asked_twice_where_all_are_dead(
    two: Callable[[str, str], Upstreams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "_CONNECT_SECONDS", 0.3)
    async with unanswered() as here, unanswered() as there:
        with pytest.raises(UpstreamError, match="No model server answers"):
            await ask(two(here, there))
