"""The alias on the servers follows the routes, through failures and newer routes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tao_daemon.daemon import in_place
from tao_daemon.daemon.in_place import InPlaceDelivery
from tao_daemon.daemon.routes_board import RoutesBoard
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.rollout import Routes


async def test_it_follows_and_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "_RETRY_SECONDS", 0.01)
    board = RoutesBoard(tmp_path / "routes.json")
    flips: list[str | None] = []
    failures = 2

    async def flip(alias: str, record: Any) -> str:
        nonlocal failures
        if record and failures:
            failures -= 1
            raise UpstreamError("down")
        flips.append(record.name if record else None)
        return alias

    store: Any = SimpleNamespace(get=lambda name: SimpleNamespace(name=name))
    task = asyncio.create_task(InPlaceDelivery("live", board, store, flip).run())
    board.publish(Routes(1, "a"))
    async with asyncio.timeout(20):
        while flips != ["a"]:
            await asyncio.sleep(0.005)
        board.publish(Routes(2, "a", unready=("x",)))
        while flips != ["a", "a"]:
            await asyncio.sleep(0.005)
        board.publish(Routes(3, None))
        while flips != ["a", "a", None]:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
