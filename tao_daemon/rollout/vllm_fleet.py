"""The vLLM replicas as one: an adapter serves on all of them, verified, or on none.

Every call has the client's deadline, so `serve` ends. What a load answers is never believed: `fingerprint`.

load everywhere → listed → fingerprint → serving   (any failure: unload what this call loaded, raise)
"""

from __future__ import annotations

import asyncio
import logging
import os.path
from collections.abc import Sequence
from pathlib import Path

from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import PathMap
from tao_daemon.domain.adapter import AdapterRecord, FingerprintProbe
from tao_daemon.domain.errors import AdapterError, UpstreamError
from tao_daemon.rollout.fingerprint import Comparison, Observation, compare

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
        self._replicas = tuple(replicas)
        self._base_model = base_model
        self._max_rank = max_rank
        self._max_error = max_error
        self._path_maps = tuple(path_maps)

    async def serve(self, adapter: AdapterRecord) -> str:
        """Load where it is missing, verify everywhere; says what was measured on each replica."""
        if adapter.rank > self._max_rank:
            raise AdapterError(
                f"adapter {adapter.name} has rank {adapter.rank}, above the servers' {self._max_rank}; "
                "raise --max-lora-rank and serving.max_rank"
            )
        path = server_path(adapter.path, self._path_maps)
        resident = await asyncio.gather(*(_has(replica, adapter.name, path) for replica in self._replicas))
        # All are awaited even when one fails: a load that is cut off may still end after the unload.
        results = await asyncio.gather(
            *(self._serve_on(*pair, adapter, path) for pair in zip(self._replicas, resident, strict=True)),
            return_exceptions=True,
        )
        if error := _worst(results):
            # Where it served before and was not refused it stays: another replica's outage must not end that.
            tried = zip(self._replicas, resident, results, strict=True)
            await _withdraw(
                adapter.name, [r for r, had, result in tried if not had or isinstance(result, AdapterError)]
            )
            raise error
        return "; ".join(str(result) for result in results)

    async def retire(self, name: str) -> None:
        """Unload everywhere. Every replica is tried before the first UpstreamError is raised."""
        results = await asyncio.gather(*(r.unload_adapter(name) for r in self._replicas), return_exceptions=True)
        if error := _worst(results):
            raise error

    async def _serve_on(self, replica: VllmClient, resident: bool, adapter: AdapterRecord, path: str) -> str:
        if not resident:
            await _load(replica, adapter.name, path)
        comparison = await self._measure(replica, adapter)
        log.info(
            "adapter compared with the trainer",
            extra={"adapter": adapter.name, "url": replica.base_url, "accepted": comparison.accepted}
            | dict(comparison.numbers),
        )
        if not comparison.accepted:
            raise AdapterError(f"{replica.base_url} does not serve {adapter.name}: {comparison.reason}")
        return f"{replica.base_url} {comparison.reason}"

    async def _measure(self, replica: VllmClient, adapter: AdapterRecord) -> Comparison:
        """One probe after another: a live server must not notice."""
        observed = []
        for probe in adapter.fingerprint.probes:
            with_adapter = await replica.prompt_logprobs(adapter.name, probe.token_ids)
            with_base = await replica.prompt_logprobs(self._base_model, probe.token_ids)
            observed.append(Observation(_completion(probe, with_adapter), _completion(probe, with_base)))
        return compare(adapter.fingerprint, observed, self._max_error)


async def _has(replica: VllmClient, name: str, path: str) -> bool:
    """Whether it was there before us. A replica that cannot be asked now fails at the load."""
    try:
        return any((model.name, model.root) == (name, path) for model in await replica.models())
    except UpstreamError:
        return False


async def _load(replica: VllmClient, name: str, path: str) -> None:
    await replica.unload_adapter(name)
    await replica.load_adapter(name, path)
    if name not in {model.name for model in await replica.models()}:
        raise AdapterError(f"{replica.base_url} accepted {name} but does not list it; see its log")


async def _withdraw(name: str, replicas: Sequence[VllmClient]) -> None:
    results = await asyncio.gather(*(r.unload_adapter(name) for r in replicas), return_exceptions=True)
    if error := _worst(results):
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


def _completion(probe: FingerprintProbe, logprobs: Sequence[float]) -> tuple[float, ...]:
    """The completion's part of `prompt_logprobs`, whose value i belongs to token i + 1."""
    return tuple(logprobs[probe.start - 1 :])


def _worst(results: Sequence[object]) -> BaseException | None:
    """A bug before a refusal, a refusal before a failed call."""
    errors = [result for result in results if isinstance(result, BaseException)]
    return max(errors, key=_severity, default=None)


def _severity(error: BaseException) -> int:
    return 0 if isinstance(error, UpstreamError) else 1 if isinstance(error, AdapterError) else 2
