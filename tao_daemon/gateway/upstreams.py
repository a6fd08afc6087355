"""The replicas behind a gateway: which one answers, and what to try when it cannot.

Everything tried again was refused or lost before the first byte, so a client never sees two versions.

version after version, replica after replica → the first that has it → an open response → closed
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import Kind, Version, replica_order, rewrite

IDLE_SECONDS = 60.0
"""A stream that does not move for so long is over."""
_CONNECT_SECONDS = 5.0
_REST_SECONDS = 5.0
"""How long a replica that gave no answer is tried last."""


class _Replica:
    __slots__ = ("in_flight", "resting_until", "url", "urls")

    def __init__(self, url: str) -> None:
        self.url = url
        self.urls: dict[str, URL] = {}
        """Parsed once per path."""
        self.in_flight = 0
        self.resting_until = 0.0

    def at(self, path: str) -> URL:
        found = self.urls.get(path)
        if found is None:
            found = self.urls[path] = URL(self.url + path)
        return found


@dataclass(slots=True)
class Ask:
    """One client request on its way."""

    path: str
    raw: bytes
    body: dict[str, Any]
    """`raw`, parsed."""
    headers: Mapping[str, str]
    versions: Sequence[Version]
    unready: frozenset[str]
    model: str
    """The name on the servers that is being asked for now; counted in flight under it."""
    unreachable: set[str] = field(default_factory=set)
    """Replicas that gave no answer to this request."""
    breaks: int = 0


class Answer:
    """An upstream response whose body is unread, and the version that gives it. The caller closes it."""

    __slots__ = ("_replica", "response", "version")

    def __init__(self, version: Version, response: aiohttp.ClientResponse, replica: _Replica) -> None:
        self.version = version
        self.response = response
        self._replica = replica

    def close(self) -> None:
        """End the upstream request."""
        self._replica.in_flight -= 1
        # Closes the connection unless the body was read to its end: so the server stops generating.
        self.response.release()


class Upstreams:
    """The replicas. The session belongs to the caller, and so does the deadline of a whole request."""

    def __init__(
        self, urls: Sequence[str], api_key: str | None, session: aiohttp.ClientSession, meters: Meters
    ) -> None:
        self._replicas = [_Replica(url.rstrip("/")) for url in urls]
        self._authorization = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = session
        self._meters = meters
        self._turn = 0
        self._whole = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        self._stream = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=IDLE_SECONDS)
        self._clock = asyncio.get_running_loop().time

    async def answer(self, ask: Ask) -> Answer:
        """The first of the versions that a reachable replica has.

        Raises UpstreamTimeout, or UpstreamError when no replica answers.
        """
        for version in ask.versions:
            if version.model != ask.model:
                self._meters.moved(ask.model, version.model)
                ask.model = version.model
            answer = await self._first_with(version, ask)
            if answer is not None:
                return answer
            if len(ask.unreachable) == len(self._replicas):
                raise UpstreamError("No model server answers.")
            self._meters.fallbacks[version.kind] += 1
        raise UpstreamError("No model server knows the base model; does --served-model-name match the gateway's?")

    async def _first_with(self, version: Version, ask: Ask) -> Answer | None:
        """An answer of a replica that has the version, or None."""
        payload = rewrite(ask.raw, ask.body, version)
        barred = ask.unreachable if version.kind is Kind.BASE else ask.unreachable | ask.unready
        queue = deque(replica for replica in self._order() if replica.url not in barred)
        while queue:
            replica = queue.popleft()
            try:
                response = await self._post(replica, payload, ask)
            except _Broken:
                # An idle connection may close just as it is used; twice, the request itself may kill servers.
                ask.breaks += 1
                if ask.breaks > 1:
                    raise UpstreamError("The model servers broke the connection.") from None
                queue.append(replica)
                continue
            if response is None:
                continue
            answer = Answer(version, response, replica)
            # On these routes 404 says that the model is not there, perhaps since a restart.
            if response.status != 404:
                return answer
            answer.close()
        return None

    def _order(self) -> list[_Replica]:
        if len(self._replicas) == 1:
            return self._replicas
        now = self._clock()
        self._turn += 1
        order = replica_order(
            [replica.in_flight for replica in self._replicas],
            [replica.resting_until > now for replica in self._replicas],
            self._turn,
        )
        return [self._replicas[index] for index in order]

    async def _post(self, replica: _Replica, payload: bytes, ask: Ask) -> aiohttp.ClientResponse | None:
        """The response's head; None without a connection. Raises _Broken, UpstreamTimeout."""
        replica.in_flight += 1
        response = None
        try:
            response = await self._session.post(
                replica.at(ask.path),
                data=payload,
                headers={**ask.headers, **self._authorization},
                timeout=self._stream if ask.body.get("stream") else self._whole,
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
        return response

    def _rest(self, replica: _Replica) -> None:
        replica.resting_until = self._clock() + _REST_SECONDS
        self._meters.unreachable += 1


class _Broken(Exception):
    """The connection broke after the request was sent and before an answer."""
