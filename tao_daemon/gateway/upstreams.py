"""The replicas behind a gateway: which one answers, and what to try when it cannot.

Everything tried again was refused or lost before the first byte, so a client never sees two versions.

version after version, replica after replica → the first that has it → an open response
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        candidates: Sequence[Version],
        deadline: float,
    ) -> AsyncIterator[Answer]:
        """The first version that a reachable replica has. Leaving the block ends the upstream request.

        `deadline` in the loop's time. Raises UpstreamTimeout, or UpstreamError when no replica answers.
        """
        unreachable: set[str] = set()
        for version in candidates:
            payload = rewrite(body, version)
            for replica in self._order():
                if replica.url in unreachable:
                    continue
                replica.in_flight += 1
                try:
                    response = await self._post(replica, path, payload, headers, _timeout(body, deadline))
                    if response is None:
                        unreachable.add(replica.url)
                    elif response.status == 404:
                        # On these routes: the replica does not have the model, perhaps since a restart.
                        response.close()
                    else:
                        try:
                            yield Answer(version, response)
                        finally:
                            response.close()
                        return
                finally:
                    replica.in_flight -= 1
            if len(unreachable) == len(self._replicas):
                raise UpstreamError("No model server answers; see the gateway's tao_gateway_unreachable_replicas.")
            self._meters.fell_back(version.kind)
        raise UpstreamError(
            "No model server knows the base model; compare serving.base_model with --served-model-name."
        )

    def _order(self) -> list[_Replica]:
        now = asyncio.get_running_loop().time()
        self._turn += 1
        order = replica_order(
            [replica.in_flight for replica in self._replicas],
            [replica.resting_until > now for replica in self._replicas],
            self._turn,
        )
        return [self._replicas[index] for index in order]

    async def _post(
        self, replica: _Replica, path: str, payload: bytes, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse | None:
        """The response's head, or None when there is no connection or it broke before an answer."""
        try:
            return await self._session.post(
                replica.url + path,
                data=payload,
                headers={**headers, **self._authorization},
                timeout=timeout,
                allow_redirects=False,
            )
        except aiohttp.ConnectionTimeoutError:
            pass
        except TimeoutError:
            raise UpstreamTimeout("The model server did not answer in time.") from None
        except (aiohttp.ClientError, OSError):
            pass
        replica.resting_until = asyncio.get_running_loop().time() + _REST_SECONDS
        self._meters.unreachable()
        return None


def _timeout(body: Mapping[str, Any], deadline: float) -> aiohttp.ClientTimeout:
    left = max(0.001, deadline - asyncio.get_running_loop().time())
    idle = IDLE_SECONDS if body.get("stream") else None
    return aiohttp.ClientTimeout(total=left, sock_connect=_CONNECT_SECONDS, sock_read=idle)
