"""The client for model servers, against servers that say what HTTP allows and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tao_daemon.gateway.http_client import Broken, CannotConnect, Client, Idle

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


class Server:
    """Answers each request with the reply in turn; `connections` counts."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.heads: list[bytes] = []
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                self.heads.append(head)
                await self.replies.pop(0)(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def says(data: bytes, *, close: bool = False) -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return reply


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Client]]:
    stub = Server()
    listening = await asyncio.start_server(stub.handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}/api", {"A": "b"}, connect_seconds=1.0, keep_alive_seconds=0.3)
    yield stub, client
    client.close()
    listening.close()


async def ask(client: Client, idle: float | None = None) -> bytes:
    response = await client.post("/v1", b"{}", {"C": "d"}, idle)
    try:
        return await response.read()
    finally:
        response.release()


async def test_whole_answers_share_a_connection_until_it_is_old(server: tuple[Server, Client]) -> None:
    stub, client = server
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    stub.replies = [says(OK + b"Content-Length: 3\r\n\r\nabc"), says(chunked), says(OK + b"Content-Length: 0\r\n\r\n")]
    assert [await ask(client) for _ in range(2)] == [b"abc", b"abcde"]
    assert stub.connections == 1
    assert stub.heads[0].startswith(b"POST /api/v1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nA: b\r\nC: d\r\nContent-Length: 2\r\n" in stub.heads[0]
    await asyncio.sleep(0.4)
    assert await ask(client) == b""
    assert stub.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection(server: tuple[Server, Client]) -> None:
    stub, client = server
    stub.replies = [says(OK + b"\r\nabc", close=True), says(OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx")]
    stub.replies.append(says(OK + b"Content-Length: 1\r\n\r\ny"))
    assert [await ask(client) for _ in range(3)] == [b"abc", b"x", b"y"]
    assert stub.connections == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense\r\n\r\n",
        OK,
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_cut_or_no_http_is_broken(server: tuple[Server, Client], data: bytes) -> None:
    stub, client = server
    stub.replies = [says(data, close=True), says(OK + b"Content-Length: 1\r\n\r\ny")]
    with pytest.raises(Broken):
        await ask(client)
    assert await ask(client) == b"y"


async def test_a_silent_server_is_idle_and_a_provisional_answer_is_none(server: tuple[Server, Client]) -> None:
    stub, client = server
    stub.replies = [says(b""), says(OK + b"Content-Length: 5\r\n\r\nab")]
    for _ in range(2):
        with pytest.raises(Idle):
            await ask(client, idle=0.1)
    stub.replies = [says(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\ny")]
    assert await ask(client) == b"y"


async def test_an_answer_that_is_not_read_is_not_taken_from_the_server(server: tuple[Server, Client]) -> None:
    stub, client = server
    size, written = 64 * 1_048_576, 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        while written < size:
            writer.write(b"x" * 65_536)
            await writer.drain()
            written += 65_536

    stub.replies = [endless]
    response = await client.post("/v1", b"{}", {}, None)
    await asyncio.sleep(0.3)
    assert written < size // 2, "memory must not take the whole answer"
    assert len(await response.read()) == size
    response.release()


async def test_nobody_there(server: tuple[Server, Client]) -> None:
    client = Client("http://127.0.0.1:1", {}, connect_seconds=1.0, keep_alive_seconds=1.0)
    with pytest.raises(CannotConnect):
        await ask(client)
