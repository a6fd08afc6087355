"""Groups of completions graded: rewards joined to them, and what a round's scoring came to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from tao_daemon.clients.bounded import together
from tao_daemon.domain.completion import CompletionGroup, ScoredGroup
from tao_daemon.domain.ports import Scorer
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import GroupsScored
from tao_daemon.scoring.cutoff import settle_cut_off

CONCURRENT_GROUPS = 16
"""Graded at once: a judge takes seconds, and limits its own requests."""


async def grade_all(
    scorer: Scorer,
    groups: Sequence[CompletionGroup],
    prompts: Mapping[str, Prompt],
    sampling_limit: int,
    progress: Callable[[int], None],
) -> list[ScoredGroup | None]:
    """What `grade` says of every group, in order. `progress` gets the number that are done. Raises UpstreamError when
    a server that scores does not answer."""
    turns = asyncio.Semaphore(CONCURRENT_GROUPS)
    done = 0

    async def one(group: CompletionGroup) -> ScoredGroup | None:
        nonlocal done
        async with turns:
            graded = await grade(scorer, prompts[group.prompt_id], group, sampling_limit)
        done += 1
        progress(done)
        return graded

    return await together(one(group) for group in groups)


async def grade(scorer: Scorer, prompt: Prompt, group: CompletionGroup, sampling_limit: int) -> ScoredGroup | None:
    """The group with its rewards, and without the completions that say nothing; None when one could not be scored."""
    rewards = await scorer.score(prompt, [completion.text for completion in group.completions])
    if not group.completions or None in rewards:
        return None
    # Who applies may take a pattern to match, or a schema to compile.
    names = await asyncio.to_thread(scorer.names, prompt)
    graded = ScoredGroup(group, tuple(r for r in rewards if r is not None), names)
    return settle_cut_off(graded, prompt.request, sampling_limit)


def scoring_signal(useful: Sequence[ScoredGroup], *, dropped: int, failures: int) -> GroupsScored:
    """What scoring came to; means are over the rewards of the groups that are kept."""
    rewards = [reward for scored in useful for reward in scored.rewards]
    plain = [
        reward
        for scored in useful
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True)
        if completion.is_plain
    ]
    return GroupsScored(len(useful), dropped, _mean(rewards), _mean(plain), failures)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
