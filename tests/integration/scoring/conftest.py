"""What scoring over HTTP needs: a session, a place for signals, and prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tao_daemon.domain.signals import Signal


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def signals() -> list[Signal]:
    return []
