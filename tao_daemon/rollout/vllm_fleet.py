"""The vLLM replicas as one: an adapter serves on all of them, verified, or on none.

Every call has the client's deadline, so all of it ends. One replica by itself: `vllm_replica`.

guard → load everywhere → listed → fingerprint → serving   (any failure: unload what this call loaded, raise)
"""

from __future__ import annotations

import asyncio
import logging
import os.path
from collections.abc import Callable, Sequence
from pathlib import Path

from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import PathMap
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import AdapterError, UpstreamError
from tao_daemon.domain.ports import ReplicaView
from tao_daemon.rollout.compatibility import Delivery
from tao_daemon.rollout.vllm_replica import VllmReplica

log = logging.getLogger(__name__)


class VllmFleet:
    """`domain.ports.Fleet` over HTTP."""

    def __init__(
        self,
        replicas: Sequence[VllmClient],
        *,
        base_model: str,
        max_rank: int,
        max_error: float,
        path_maps: Sequence[PathMap] = (),
    ) -> None:
        self._replicas = {
            client.base_url: VllmReplica(client, base_model=base_model, max_error=max_error) for client in replicas
        }
        self._base_model = base_model
        self._max_rank = max_rank
        self._path_maps = tuple(path_maps)

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(self._replicas)

    async def serve(self, adapter: AdapterRecord) -> str:
        """Load where it is missing, verify everywhere; says what was measured on each replica."""
        path = self._path(adapter)
        replicas = tuple(self._replicas.values())
        # All are awaited even when one fails: a load that is cut off may still end after the unload.
        attempts = await asyncio.gather(*(replica.serve(adapter, path) for replica in replicas))
        if error := _worst([attempt.error for attempt in attempts]):
            tried = zip(replicas, attempts, strict=True)
            await _withdraw(adapter.name, [replica for replica, attempt in tried if attempt.must_go])
            raise error
        return "; ".join(attempt.detail for attempt in attempts)

    async def check(self) -> None:
        for replica in self._replicas.values():
            await replica.require(Delivery.ROUTES)

    async def retire(self, name: str) -> None:
        """Unload everywhere. Every replica is tried before the first UpstreamError is raised."""
        if error := _worst(await _unload(name, list(self._replicas.values()))):
            raise error

    async def observe(self, url: str) -> ReplicaView:
        return await self._replicas[url].observe()

    async def heal(self, url: str, adapters: Sequence[AdapterRecord]) -> str:
        return await self._replicas[url].heal([(adapter, self._path(adapter)) for adapter in adapters])

    async def verify(self, url: str, adapter: AdapterRecord) -> str:
        return await self._replicas[url].verify(adapter)

    async def unload(self, url: str, name: str, wanted: Callable[[], bool]) -> None:
        await self._replicas[url].unload(name, wanted)

    async def touch(self, url: str, name: str) -> None:
        await self._replicas[url].touch(name)

    def seen_as(self, path: Path) -> str:
        return server_path(path, self._path_maps)

    async def flip_in_place(self, alias: str, adapter: AdapterRecord | None) -> str:
        """For clients that ask the servers themselves: make `alias` stand for the adapter, or for nothing.

        A weaker promise than routes: there is no canary, no answer tells its version, replicas flip one after
        another, so that for seconds both versions answer, and what fails half-way stays half-way (the error says
        where). Going back to the base model ends the alias: its clients get 404. The adapter is verified under its
        own name on all replicas before any flips. Raises ServerUnfit below vLLM 0.33, AdapterError, UpstreamError.
        """
        if alias == self._base_model:
            raise AdapterError(f"an alias cannot have the base model's name {alias!r}; choose another")
        if adapter is None:
            await self.retire(alias)
            return f"nothing answers to {alias}"
        for replica in self._replicas.values():
            await replica.require(Delivery.IN_PLACE)
        await self.serve(adapter)
        path, flipped = self._path(adapter), list[str]()
        for replica in self._replicas.values():
            try:
                flipped.append(await replica.flip(alias, adapter, path))
            except (AdapterError, UpstreamError) as error:
                done = ", ".join(self.urls[: len(flipped)]) or "no other replica"
                raise type(error)(f"{alias} is {adapter.name} on {done}, but: {error}; deliver it again") from None
        return "; ".join(flipped)

    def _path(self, adapter: AdapterRecord) -> str:
        if adapter.rank > self._max_rank:
            raise AdapterError(
                f"adapter {adapter.name} has rank {adapter.rank}, above the servers' {self._max_rank}; "
                "raise --max-lora-rank and serving.max_rank"
            )
        return self.seen_as(adapter.path)


async def _unload(name: str, replicas: Sequence[VllmReplica]) -> list[BaseException | None]:
    return await asyncio.gather(*(replica.unload(name) for replica in replicas), return_exceptions=True)


async def _withdraw(name: str, replicas: Sequence[VllmReplica]) -> None:
    if error := _worst(await _unload(name, replicas)):
        # A server that cannot be asked serves nobody; the caller's own error says what to do.
        log.warning("adapter may still be loaded", extra={"adapter": name, "error": str(error)})


def server_path(path: Path, maps: Sequence[PathMap]) -> str:
    """A local path as the servers see it: absolute, the longest matching map applied.

    Absolute because vLLM takes a relative one for a name on a model hub.
    """
    local = Path(os.path.abspath(path))
    matching = [(Path(os.path.abspath(each.local)), each.server) for each in maps]
    matching = [(near, far) for near, far in matching if local.is_relative_to(near)]
    if not matching:
        return str(local)
    near, far = max(matching, key=lambda pair: len(pair[0].parts))
    return str(far / local.relative_to(near))


def _worst(errors: Sequence[BaseException | None]) -> BaseException | None:
    """A bug before a refusal, a refusal before a failed call."""
    return max((error for error in errors if error), key=_severity, default=None)


def _severity(error: BaseException) -> int:
    return 0 if isinstance(error, UpstreamError) else 1 if isinstance(error, AdapterError) else 2
