"""The live prompts that a shadow asks. Only scored ones are used up: an outage costs none, however long it lasts.

claimed → scored: it never trains | not scored: back in the pool at once, asked again after all others, or given up
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tao_daemon.domain.ports import PromptStore
from tao_daemon.domain.prompt import Prompt

_TRIES = 3
"""A prompt that was to blame so often is not asked again in the same rollout. It may still train."""


class ShadowPrompts:
    """What it remembers is of one rollout and of this process. A process that dies while it asks keeps what it asks
    away from training, and no more."""

    def __init__(
        self, store: PromptStore, *, limit: int, tenant_share: float, judges: Callable[[Prompt], bool]
    ) -> None:
        self._store = store
        self._limit = limit
        self._tenant_share = tenant_share
        self._judges = judges
        self._adapter = ""
        self._owed: list[str] = []
        """To be returned; the buffer may not answer when they should be."""
        self._deferred: set[str] = set()
        """Asked and not scored since all that there is had its turn."""
        self._blamed: Counter[str] = Counter()

    @property
    def given_up(self) -> int:
        return sum(tries >= _TRIES for tries in self._blamed.values())

    async def claim(self, adapter: str) -> Sequence[Prompt]:
        """The newest whose turn it is. Raises PromptStoreError."""
        if adapter != self._adapter:
            self._adapter = adapter
            self._deferred.clear()
            self._blamed.clear()
        await self._return_owed()
        prompts = await self._claim()
        if not prompts and self._deferred:
            self._deferred.clear()
            prompts = await self._claim()
        return prompts

    async def give_back(self, prompts: Sequence[Prompt], blamed: Sequence[Prompt]) -> None:
        """These could not be scored, and some may be to blame for that themselves. Raises PromptStoreError; what could
        not be returned is with the next claim."""
        ids = [prompt.id for prompt in prompts]
        self._owed += ids
        self._deferred.update(ids)
        self._blamed.update(prompt.id for prompt in blamed)
        await self._return_owed()

    async def _return_owed(self) -> None:
        if self._owed:
            await self._store.return_shadowed(self._owed)
            self._owed = []

    async def _claim(self) -> Sequence[Prompt]:
        return await self._store.claim_shadow(self._limit, self._tenant_share, self._may_ask)

    def _may_ask(self, prompt: Prompt) -> bool:
        """Called on the buffer's thread."""
        return prompt.id not in self._deferred and self._blamed.get(prompt.id, 0) < _TRIES and self._judges(prompt)
