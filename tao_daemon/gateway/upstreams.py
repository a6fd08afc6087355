"""The replicas behind a gateway: which one answers, and what to try when it cannot.

Everything tried again was refused or lost before the first byte, so a client never sees two versions.

version after version, replica after replica → the first that has it → an open response
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import Version, replica_order, rewrite

IDLE_SECONDS = 60.0
"""A stream that does not move for so long is over."""
_CONNECT_SECONDS = 5.0
_REST_SECONDS = 5.0
"""How long a replica that gave no answer is tried last."""


@dataclass(slots=True)
class _Replica:
    url: str
    in_flight: int = 0
    resting_until: float = 0.0


@dataclass(slots=True)
class Ask:
    """One client request on its way. `deadline` in the loop's time."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    deadline: float
    unreachable: set[str] = field(default_factory=set)
    """Replicas that gave no answer to this request."""
    breaks: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An upstream response whose body is unread, and the version that gives it."""

    version: Version
    response: aiohttp.ClientResponse


class Upstreams:
    """The replicas. The session belongs to the caller."""

    def __init__(
        self, urls: Sequence[str], api_key: str | None, session: aiohttp.ClientSession, meters: Meters
    ) -> None:
        self._replicas = [_Replica(url.rstrip("/")) for url in urls]
        self._authorization = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = session
        self._meters = meters
        self._turn = 0

    @asynccontextmanager
    async def answer(self, ask: Ask, candidates: Sequence[Version]) -> AsyncIterator[Answer]:
        """The first version that a reachable replica has. Leaving the block ends the upstream request.

        Raises UpstreamTimeout, or UpstreamError when no replica answers.
        """
        for version in candidates:
            async with self._first_with(version, ask) as response:
                if response is not None:
                    yield Answer(version, response)
                    return
            if len(ask.unreachable) == len(self._replicas):
                raise UpstreamError("No model server answers.")
            self._meters.fell_back(version.kind)
        raise UpstreamError("No model server knows the base model; does --served-model-name match the gateway's?")

    @asynccontextmanager
    async def _first_with(self, version: Version, ask: Ask) -> AsyncIterator[aiohttp.ClientResponse | None]:
        """A response from a replica that has the version, or None."""
        payload = rewrite(ask.body, version)
        queue = deque(replica for replica in self._order() if replica.url not in ask.unreachable)
        while queue:
            replica = queue.popleft()
            try:
                async with self._post(replica, payload, ask) as response:
                    # On these routes 404 says that the model is not there, perhaps since a restart.
                    if response is not None and response.status != 404:
                        yield response
                        return
            except _Broken:
                # An idle connection may close just as it is used; twice, the request itself may kill servers.
                ask.breaks += 1
                if ask.breaks > 1:
                    raise UpstreamError("The model servers broke the connection.") from None
                queue.append(replica)
        yield None

    def _order(self) -> list[_Replica]:
        now = asyncio.get_running_loop().time()
        self._turn += 1
        order = replica_order(
            [replica.in_flight for replica in self._replicas],
            [replica.resting_until > now for replica in self._replicas],
            self._turn,
        )
        return [self._replicas[index] for index in order]

    @asynccontextmanager
    async def _post(self, replica: _Replica, payload: bytes, ask: Ask) -> AsyncIterator[aiohttp.ClientResponse | None]:
        """The response's head; None without a connection. Raises _Broken, UpstreamTimeout."""
        replica.in_flight += 1
        response = None
        try:
            response = await self._session.post(
                replica.url + ask.path,
                data=payload,
                headers={**ask.headers, **self._authorization},
                timeout=_timeout(ask),
                allow_redirects=False,
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError):
            ask.unreachable.add(replica.url)
            self._rest(replica)
        except TimeoutError:
            raise UpstreamTimeout("The model server did not answer in time.") from None
        except (aiohttp.ClientError, OSError):
            self._rest(replica)
            raise _Broken from None
        finally:
            if response is None:
                replica.in_flight -= 1
        if response is None:
            yield None
            return
        try:
            yield response
        finally:
            replica.in_flight -= 1
            # Closes the connection unless the body was read to its end: so the server stops generating.
            response.release()

    def _rest(self, replica: _Replica) -> None:
        replica.resting_until = asyncio.get_running_loop().time() + _REST_SECONDS
        self._meters.unreachable()


class _Broken(Exception):
    """The connection broke after the request was sent and before an answer."""


def _timeout(ask: Ask) -> aiohttp.ClientTimeout:
    left = max(0.001, ask.deadline - asyncio.get_running_loop().time())
    idle = IDLE_SECONDS if ask.body.get("stream") else None
    return aiohttp.ClientTimeout(total=left, sock_connect=_CONNECT_SECONDS, sock_read=idle)
