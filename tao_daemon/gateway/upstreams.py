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

from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.gateway.http_client import Broken, CannotConnect, Client, Idle, Response
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import Kind, Version, replica_order, rewrite

IDLE_SECONDS = 60.0
"""A stream that does not move for so long is over."""
_CONNECT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 3.0
"""Below the 5 seconds after which vLLM's server closes an idle connection: never use one that is closing."""
_REST_SECONDS = 5.0
"""How long a replica that gave no answer is tried last; twice as long after each further try of it that fails."""
_LONGEST_REST_SECONDS = 30.0
_PROBE_SECONDS = 10.0
"""How long the one request that tries a rested replica keeps the others away from it."""


class _Replica:
    """A replica that failed rests; then one request tries it, and what that finds holds for the others."""

    __slots__ = ("client", "in_flight", "rest_seconds", "resting_until", "url")

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self.client = Client(
            self.url, headers, connect_seconds=_CONNECT_SECONDS, keep_alive_seconds=_KEEP_ALIVE_SECONDS
        )
        self.in_flight = 0
        self.rest_seconds = self.resting_until = 0.0

    def begin(self, now: float) -> bool:
        """A request goes there. True when it is the one that tries the replica."""
        if not self.rest_seconds or self.resting_until > now:
            return False
        self.resting_until = now + _PROBE_SECONDS
        return True

    def succeed(self) -> None:
        self.rest_seconds = self.resting_until = 0.0

    def fail(self, now: float, *, tried: bool) -> None:
        """Failures that come together make it rest once."""
        longer = min(2 * self.rest_seconds, _LONGEST_REST_SECONDS) if tried else self.rest_seconds
        self.rest_seconds = longer or _REST_SECONDS
        self.resting_until = now + self.rest_seconds


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
    until: float
    """When the caller's patience ends, in the loop's time."""
    unreachable: set[str] = field(default_factory=set)
    """Replicas that gave no answer to this request."""
    breaks: int = 0


class Answer:
    """An upstream response whose body is unread, and the version that gives it. The caller closes it."""

    __slots__ = ("_replica", "response", "version")

    def __init__(self, version: Version, response: Response, replica: _Replica) -> None:
        self.version = version
        self.response = response
        self._replica = replica

    def close(self) -> None:
        """End the upstream request."""
        self._replica.in_flight -= 1
        # Closes the connection unless the body was read to its end: so the server stops generating.
        self.response.release()


class Upstreams:
    """The replicas. The deadline of a whole request belongs to the caller."""

    def __init__(self, urls: Sequence[str], api_key: str | None, meters: Meters) -> None:
        # The encoding is plain so that the model's name can be replaced.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._replicas = [_Replica(url, headers) for url in urls]
        self._meters = meters
        self._turn = 0
        self._clock = asyncio.get_running_loop().time

    def close(self) -> None:
        for replica in self._replicas:
            replica.client.close()

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
        queue = deque(replica for replica in self._order(ask.unready) if replica.url not in barred)
        while queue:
            replica = queue.popleft()
            try:
                response = await self._post(replica, payload, ask)
            except Broken:
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

    def _order(self, unready: frozenset[str]) -> list[_Replica]:
        if len(self._replicas) == 1:
            return self._replicas
        now = self._clock()
        self._turn += 1
        order = replica_order(
            [replica.in_flight for replica in self._replicas],
            [replica.resting_until > now or replica.url in unready for replica in self._replicas],
            self._turn,
        )
        return [self._replicas[index] for index in order]

    async def _post(self, replica: _Replica, payload: bytes, ask: Ask) -> Response | None:
        """The response's head; None without a connection. Raises Broken, UpstreamTimeout."""
        tried = replica.begin(self._clock())
        replica.in_flight += 1
        response = None
        try:
            idle = IDLE_SECONDS if ask.body.get("stream") else None
            response = await replica.client.post(ask.path, payload, ask.headers, idle)
            replica.succeed()
        except CannotConnect:
            ask.unreachable.add(replica.url)
            self._failed(replica, tried)
        except Idle:
            self._failed(replica, tried)
            raise UpstreamTimeout("The model server did not answer in time.") from None
        except Broken:
            self._failed(replica, tried)
            raise
        except asyncio.CancelledError:
            if self._clock() >= ask.until:
                self._failed(replica, tried)
            elif tried:  # The client left: nothing was learned, the next request tries.
                replica.resting_until = self._clock()
            raise
        finally:
            if response is None:
                replica.in_flight -= 1
        return response

    def _failed(self, replica: _Replica, tried: bool) -> None:
        replica.fail(self._clock(), tried=tried)
        self._meters.unreachable += 1
