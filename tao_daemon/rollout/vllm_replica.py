"""One vLLM server: what it is, what it has loaded, and whether it truly serves that.

Everything that changes it runs under one lock, so that whoever keeps it and whoever swaps never interleave. What
a load answers is never believed: `fingerprint`. What it is, is read once per process of it.

guard → load → listed → fingerprint → serving → unload
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from tao_daemon.clients.vllm import ServerMetrics, VllmClient
from tao_daemon.domain.adapter import AdapterRecord, FingerprintProbe
from tao_daemon.domain.errors import AdapterError, ServerUnfit, TaoError, UpstreamError
from tao_daemon.domain.ports import ReplicaView
from tao_daemon.rollout.compatibility import Delivery, Facts, Findings, Needs, examine
from tao_daemon.rollout.fingerprint import Comparison, Observation, compare

log = logging.getLogger(__name__)

_UNKNOWN = ServerMetrics(None, None, None)
_HIDDEN = frozenset({401, 403, 404, 405})
_FIRST_REQUEST_SECONDS = 5.0
_BATCH_TOKENS = 2048
"""Of probes in one request: each prefill stays a small one."""

T = TypeVar("T")


class _NotServed(AdapterError):
    """What a server says under the adapter's name is not what the adapter says."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of serving an adapter on one replica: what was measured, or the error."""

    must_go: bool
    """If the adapter is not served everywhere: this attempt loaded it here, or it is not truly served here.

    Where it served before and was not refused it stays: another replica's outage must not end that.
    """
    detail: str = ""
    error: Exception | None = None


class VllmReplica:
    """One server of a fleet. Paths are as the server sees them."""

    def __init__(self, client: VllmClient, *, base_model: str, max_error: float) -> None:
        self._client = client
        self._base_model = base_model
        self._max_error = max_error
        self._lock = asyncio.Lock()
        self._known: tuple[float | None, Facts] | None = None

    @property
    def url(self) -> str:
        return self._client.base_url

    async def observe(self) -> ReplicaView:
        """What it is and has loaded. Raises UpstreamError."""
        try:
            metrics, facts = await self._read()
            models = await self._client.models()
        except UpstreamError:
            # It may come back as another process, with other flags.
            self._known = None
            raise
        found = examine(facts, Needs(self._base_model))
        loaded = {model.name: model.root for model in models if model.parent is not None}
        problems = tuple(map(str, (*found.refusals, *found.cautions)))
        return ReplicaView(self.url, facts.version, metrics.started_at, loaded, problems)

    async def serve(self, adapter: AdapterRecord, path: str) -> Attempt:
        """Load it if it is missing, and verify it. Raises nothing but bugs."""
        loaded = False
        async with self._lock:
            try:
                await self._require(Delivery.ROUTES)
                loaded = not await self._lists(adapter.name, path)
                if loaded:
                    await self._load(adapter.name, path)
                return Attempt(loaded, await self._verify(adapter, adapter.name))
            except _NotServed as error:
                return Attempt(must_go=True, error=error)
            except TaoError as error:
                return Attempt(must_go=loaded, error=error)

    async def heal(self, adapters: Sequence[tuple[AdapterRecord, str]]) -> str:
        """Load what is missing and verify everything; what is listed and not truly served is loaded anew, once."""
        if not adapters:
            return f"{self.url} has no adapter to serve"
        async with self._lock:
            await self._require(Delivery.ROUTES)
            return "; ".join([await self._restore(adapter, path) for adapter, path in adapters])

    async def verify(self, adapter: AdapterRecord) -> str:
        async with self._lock:
            return await self._verify(adapter, adapter.name)

    async def flip(self, alias: str, adapter: AdapterRecord, path: str) -> str:
        """Make the alias stand for the adapter from the next request on, and verify that it does."""
        async with self._lock:
            await self._client.load_adapter(alias, path, in_place=True)
            return await self._verify(adapter, alias)

    async def unload(self, name: str, wanted: Callable[[], bool] = lambda: False) -> None:
        """Drop a name, unless it is wanted by the time that nothing else changes the server."""
        async with self._lock:
            if not wanted():
                await self._client.unload_adapter(name)
                log.info("adapter unloaded", extra={"url": self.url, "adapter": name})

    async def touch(self, name: str) -> None:
        await self._client.touch(name)

    async def require(self, delivery: Delivery) -> None:
        """Raises ServerUnfit, with every remedy, for a server that cannot serve adapters so."""
        async with self._lock:
            await self._require(delivery)

    async def _require(self, delivery: Delivery) -> None:
        _, facts = await self._read()
        found: Findings = examine(facts, Needs(self._base_model, delivery=delivery))
        if found.refusals:
            raise ServerUnfit(f"{self.url} cannot serve adapters: " + ". And: ".join(map(str, found.refusals)))

    async def _read(self) -> tuple[ServerMetrics, Facts]:
        """What the process is: read anew when it is another one."""
        metrics = await _or(_UNKNOWN, self._client.metrics)
        if self._known and self._known[0] == metrics.started_at:
            return metrics, self._known[1]
        base_models = tuple(model.name for model in await self._client.models() if model.parent is None)
        if metrics.lora_slots is None and metrics.lora_enabled is not None and base_models:
            # A process says how many slots it has from its first request on.
            with suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                    await self._client.touch(base_models[0])
            metrics = await _or(_UNKNOWN, self._client.metrics)
        facts = Facts(
            version=await _or("", self._client.version),
            base_models=base_models,
            runtime_updates=await self._client.can_load_adapters(),
            lora_enabled=metrics.lora_enabled,
            lora_slots=metrics.lora_slots,
        )
        if not (facts.lora_enabled and facts.lora_slots is None):
            self._known = (metrics.started_at, facts)
        return metrics, facts

    async def _restore(self, adapter: AdapterRecord, path: str) -> str:
        if await self._lists(adapter.name, path):
            try:
                return await self._verify(adapter, adapter.name)
            except _NotServed as error:
                log.warning(
                    "adapter is loaded anew", extra={"url": self.url, "adapter": adapter.name, "reason": str(error)}
                )
        await self._load(adapter.name, path)
        try:
            return await self._verify(adapter, adapter.name)
        except TaoError:
            with suppress(UpstreamError):
                await self._client.unload_adapter(adapter.name)
            raise

    async def _lists(self, name: str, path: str) -> bool:
        return any((model.name, model.root) == (name, path) for model in await self._client.models())

    async def _load(self, name: str, path: str) -> None:
        await self._client.unload_adapter(name)
        await self._client.load_adapter(name, path)
        if not await self._lists(name, path):
            raise AdapterError(f"{self.url} accepted {name} but does not list it; see its log")

    async def _verify(self, adapter: AdapterRecord, name: str) -> str:
        comparison = await self._measure(adapter, name)
        log.info(
            "adapter compared with the trainer",
            extra={"adapter": adapter.name, "url": self.url, "accepted": comparison.accepted}
            | dict(comparison.numbers),
        )
        if not comparison.accepted:
            raise _NotServed(f"{self.url} does not serve {adapter.name}: {comparison.reason}")
        return f"{self.url} {comparison.reason}"

    async def _measure(self, adapter: AdapterRecord, name: str) -> Comparison:
        """A few probes per request, one request after another: a live server must hardly notice."""
        observed: list[Observation] = []
        for probes in _batches(adapter.fingerprint.probes):
            sequences = [probe.token_ids for probe in probes]
            with_adapter = await self._client.prompt_logprobs(name, sequences)
            with_base = await self._client.prompt_logprobs(self._base_model, sequences)
            rows = zip(probes, with_adapter, with_base, strict=True)
            observed += [Observation(_completion(p, a), _completion(p, b)) for p, a, b in rows]
        return compare(adapter.fingerprint, observed, self._max_error)


def _batches(probes: Sequence[FingerprintProbe]) -> Iterator[list[FingerprintProbe]]:
    """Probes together, as long as they are few tokens together."""
    batch: list[FingerprintProbe] = []
    for probe in probes:
        if batch and sum(len(each.token_ids) for each in (*batch, probe)) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(probe)
    if batch:
        yield batch


async def _or(unknown: T, read: Callable[[], Awaitable[T]]) -> T:
    """The value, or `unknown` where a proxy hides the route."""
    try:
        return await read()
    except UpstreamError as error:
        if error.status not in _HIDDEN:
            raise
        return unknown


def _completion(probe: FingerprintProbe, logprobs: Sequence[float]) -> tuple[float, ...]:
    """The completion's part of `prompt_logprobs`, whose value i belongs to token i + 1."""
    return tuple(logprobs[probe.start - 1 :])
