"""Waiting for room at one server that says nothing."""

from __future__ import annotations

import asyncio

import pytest

from tao_daemon.domain.errors import UpstreamError
from tao_daemon.sampling import room
from tao_daemon.sampling.room import Room


class Server:
    """Takes connections and answers nothing, until it is back."""

    def __init__(self) -> None:
        self.looks = 0
        self.back = asyncio.Event()

    async def waiting_requests(self) -> int:
        self.looks += 1
        await self.back.wait()
        return 0


async def test_one_look_that_gets_no_answer_is_enough_for_all_who_stood_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_LOOK_TIMEOUT_SECONDS", 0.3)
    server = Server()
    waiting = Room(server, max_waiting=8)
    async with asyncio.timeout(20):
        found = await asyncio.gather(*(waiting.enter(1) for _ in range(100)), return_exceptions=True)
    assert {type(each) for each in found} == {UpstreamError}
    assert server.looks == 1
    server.back.set()
    async with asyncio.timeout(20):
        await waiting.enter(1)
    assert server.looks == 2, "who comes later looks anew"
