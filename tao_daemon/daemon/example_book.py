"""Earlier completions that a few-shot strategy may show: the best of the latest rounds, each tenant its own.

Only prompts that are still in the buffer; what was erased is shown to nobody.

archive → best completion per prompt → their prompts from the buffer → by tenant
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from tao_daemon.domain.ports import Example, Examples, PromptStore
from tao_daemon.domain.prompt import Prompt
from tao_daemon.registry.round_archive import RoundArchive

ROUNDS = 5
"""Latest scored rounds that are looked at."""
MOST = 512
"""Completions that are considered."""
MIN_REWARD = 0.5
"""A worse one is no example."""


async def open_book(archive: RoundArchive, store: PromptStore, *, before: int) -> Examples:
    """What rounds before `before` found. Raises ArchiveError, PromptStoreError."""
    best = await asyncio.to_thread(archive.best_completions, before=before, rounds=ROUNDS, limit=MOST)
    good = [row for row in best if row[2] >= MIN_REWARD]
    prompts = await store.read([prompt_id for prompt_id, _, _ in good])
    found: defaultdict[str, list[Example]] = defaultdict(list)
    for prompt_id, text, reward in good:
        if prompt_id in prompts:
            prompt = prompts[prompt_id]
            found[prompt.tenant].append(Example(prompt_id, prompt.request, text, reward))

    def examples(prompt: Prompt) -> Sequence[Example]:
        return [each for each in found.get(prompt.tenant, ()) if each.prompt_id != prompt.id]

    return examples
