"""A fleet without servers, for tests of what drives one: it keeps the same contract as the real one.

serve → serving → retire
"""

from __future__ import annotations

from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import AdapterError, UpstreamError


class MemoryFleet:
    """`domain.ports.Fleet` in memory. Put a name and an error into `failures` to make `serve` fail on it."""

    def __init__(self) -> None:
        self.serving: set[str] = set()
        self.failures: dict[str, AdapterError | UpstreamError] = {}

    async def serve(self, adapter: AdapterRecord) -> str:
        if error := self.failures.get(adapter.name):
            if isinstance(error, AdapterError):
                self.serving.discard(adapter.name)
            raise error
        self.serving.add(adapter.name)
        return f"{adapter.name} serves in memory"

    async def retire(self, name: str) -> None:
        self.serving.discard(name)
