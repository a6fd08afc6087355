"""A fleet without servers, for tests of what drives one: it keeps the same contract as the real one.

serve → serving → retire
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import AdapterError, UpstreamError
from tao_daemon.domain.ports import ReplicaView


class MemoryFleet:
    """`domain.ports.Fleet` in memory.

    Put a name and an error into `failures` to make serving fail on it, a URL into `down` to make a replica
    unreachable, (URL, name) into `untrue` to have a replica serve something else under the name until reloaded.
    """

    def __init__(self, urls: Sequence[str] = ("http://memory",)) -> None:
        self.urls = tuple(urls)
        self.loaded: dict[str, dict[str, str]] = {url: {} for url in urls}
        self.processes: dict[str, float | None] = dict.fromkeys(urls, 1.0)
        self.problems: dict[str, tuple[str, ...]] = {}
        self.failures: dict[str, AdapterError | UpstreamError] = {}
        self.down: set[str] = set()
        self.untrue: set[tuple[str, str]] = set()
        self.calls: list[tuple[str, str, str]] = []
        """(operation, url, adapter) of everything asked but observing."""

    @property
    def serving(self) -> set[str]:
        """The adapters that are on every replica."""
        return set.intersection(*(set(names) for names in self.loaded.values()))

    def restart(self, url: str) -> None:
        """Another process in its place, which has forgotten every adapter."""
        self.loaded[url] = {}
        self.processes[url] = (self.processes[url] or 0.0) + 1.0

    async def check(self) -> None:
        for url in self.urls:
            self._reach(url)

    async def serve(self, adapter: AdapterRecord) -> str:
        before = {url: dict(names) for url, names in self.loaded.items()}
        error: AdapterError | UpstreamError | None = None
        for url in self.urls:
            try:
                await self.heal(url, [adapter])
            except UpstreamError as failed:
                error = error or failed
            except AdapterError as refused:
                before[url].pop(adapter.name, None)
                error = refused
        if error:
            self.loaded = before
            raise error
        return f"{adapter.name} serves in memory"

    async def retire(self, name: str) -> None:
        for url in self.urls:
            await self.unload(url, name, lambda: False)

    async def observe(self, url: str) -> ReplicaView:
        self._reach(url)
        return ReplicaView(url, "0.32.0", self.processes[url], dict(self.loaded[url]), self.problems.get(url, ()))

    async def heal(self, url: str, adapters: Sequence[AdapterRecord]) -> str:
        for adapter in adapters:
            self.calls.append(("heal", url, adapter.name))
            self._reach(url)
            if error := self.failures.get(adapter.name):
                raise error
            self.loaded[url][adapter.name] = self.seen_as(adapter.path)
            self.untrue.discard((url, adapter.name))
        return f"{url} serves {len(adapters)} adapters"

    async def verify(self, url: str, adapter: AdapterRecord) -> str:
        self.calls.append(("verify", url, adapter.name))
        self._reach(url)
        if adapter.name not in self.loaded[url]:
            raise UpstreamError(f"{url} does not know {adapter.name}", 404)
        if (url, adapter.name) in self.untrue:
            raise AdapterError(f"{url} does not serve {adapter.name}")
        return f"{url} serves {adapter.name}"

    async def unload(self, url: str, name: str, wanted: Callable[[], bool]) -> None:
        self.calls.append(("unload", url, name))
        self._reach(url)
        if not wanted():
            self.loaded[url].pop(name, None)

    async def touch(self, url: str, name: str) -> None:
        self.calls.append(("touch", url, name))
        self._reach(url)

    async def flip_in_place(self, alias: str, adapter: AdapterRecord | None) -> str:
        for url in self.loaded:
            self._reach(url)
            if adapter is None:
                self.loaded[url].pop(alias, None)
            else:
                self.loaded[url][alias] = str(adapter.path)
        return f"{alias} stands for {adapter.name if adapter else 'nothing'}"

    def seen_as(self, path: Path) -> str:
        return str(path)

    def _reach(self, url: str) -> None:
        if url in self.down:
            raise UpstreamError(f"cannot reach {url}: it is down")
