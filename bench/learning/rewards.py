"""The rewards of a task for a trainer that is not ours: the same scorers, composition and cut-off rule."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.learning.lab_settings import MIN_SPREAD
from bench.learning.tasks.task import Task
from tao_daemon.domain.prompt import Prompt
from tao_daemon.scoring.scorer import ConfiguredScorer


class Rewards:
    """Call with one group at a time. Raises RuntimeError where a scorer fails: there is no group to drop here."""

    def __init__(self, task: Task) -> None:
        self._loop = asyncio.new_event_loop()
        self._scorer = ConfiguredScorer(task.scorers, min_spread=MIN_SPREAD)

    def group(self, prompt: Prompt, texts: Sequence[str], cut_off: Sequence[bool]) -> list[float]:
        found = self._loop.run_until_complete(self._scorer.score(prompt, texts))
        if any(reward is None for reward in found):
            raise RuntimeError("a scorer failed on a completion; see the log")
        return [0.0 if cut else float(reward or 0.0) for reward, cut in zip(found, cut_off, strict=True)]
