"""Scores of a past round, once more: the stored answers through the scorers that the present config builds.

Verifiers decide by prompt and answer alone, so the same config gives the same scores. Prompts come from the buffer,
which only one process may have open; without them nothing is scored, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tao_daemon.app.paths import buffer_path
from tao_daemon.app.replay.checks import Check, compared, unchecked
from tao_daemon.buffer.reading import look_up
from tao_daemon.config import Config, ScorerConfig
from tao_daemon.daemon.grading import grade
from tao_daemon.domain.completion import CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import InstanceError, TaoError
from tao_daemon.domain.ports import Scorer
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.report import SAME
from tao_daemon.scoring.scorer import ConfiguredScorer

REWARDS, SCORES = "scoring.rewards", "evaluation.scores"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a round stored of its answers and their scores."""

    groups: Sequence[CompletionGroup]
    scored: Sequence[ScoredGroup]
    evaluation: Sequence[Mapping[str, Any]]
    min_spread: float
    sampling_limit: int


async def rescore(config: Config, recorded: Recorded) -> list[Check]:
    """A check of the rewards and one of the gate's scores; neither for a round that stored none."""
    checks = []
    if recorded.scored:
        rewards = _counted(sum(len(s.rewards) for s in recorded.scored), "reward")
        checks.append(await _again(config, config.scorers, recorded, REWARDS, rewards))
    if recorded.evaluation:
        scores = _counted(2 * len(recorded.evaluation), "score")
        checks.append(await _again(config, config.gate.scorers or config.scorers, recorded, SCORES, scores))
    return checks


async def _again(config: Config, scorers: Sequence[ScorerConfig], recorded: Recorded, name: str, before: str) -> Check:
    """The rewards, or the gate's scores, found once more."""
    if models := _models(scorers):
        return unchecked(name, before, f"{models} is not asked again")
    ids = {group.prompt_id for group in recorded.groups} | {row["prompt_id"] for row in recorded.evaluation}
    try:
        prompts = look_up(buffer_path(config), sorted(ids))
        scorer = ConfiguredScorer(scorers, min_spread=recorded.min_spread)
    except InstanceError:
        return unchecked(name, before, "buffer in use by the daemon")
    except TaoError as error:
        return unchecked(name, before, str(error))
    try:
        if name == REWARDS:
            return _told(name, before, await _rewards(recorded, prompts, scorer))
        return _told(name, before, await _scores(recorded.evaluation, prompts, scorer))
    finally:
        await scorer.close()


def _models(scorers: Sequence[ScorerConfig]) -> str:
    """The scorers that think for themselves: another asking may give another score, and costs."""
    return ", ".join(scorer.name for scorer in scorers if scorer.type in ("judge", "reward_model"))


@dataclass(slots=True)
class _Tally:
    """What became of a prompt's scores: the same, different (and how), or not to be had again."""

    same: int = 0
    different: int = 0
    first: str = ""
    """Where the first difference is, with both numbers and no text."""
    missing: int = 0
    """Prompts that are no longer in the buffer."""
    unscored: int = 0
    """Prompts that no scorer matches any more, or that one failed on."""

    def differ(self, where: str) -> None:
        self.different += 1
        self.first = self.first or where


def _told(name: str, recorded: str, tally: _Tally) -> Check:
    remarks = [f"{tally.missing} prompts are no longer in the buffer"] if tally.missing else []
    remarks += [f"{tally.unscored} prompts could not be scored"] if tally.unscored else []
    if tally.different:
        return Check(
            name, recorded, "; ".join([f"{tally.different} prompts differ, first {tally.first}", *remarks]), False
        )
    if not tally.same:
        return unchecked(name, recorded, "; ".join(remarks) or "there is nothing to score")
    if remarks:
        return Check(name, recorded, "; ".join([f"the same for {tally.same} prompts", *remarks]), None)
    return compared(name, recorded, recorded)


async def _rewards(recorded: Recorded, prompts: Mapping[str, Prompt], scorer: Scorer) -> _Tally:
    """Every sampled group graded again: those that were kept have their rewards, the others too small a spread."""
    kept = {scored.group.prompt_id: scored for scored in recorded.scored}
    tally = _Tally()
    for group in recorded.groups:
        prompt, before = prompts.get(group.prompt_id), kept.get(group.prompt_id)
        if prompt is None:
            tally.missing += 1
            continue
        after = await grade(scorer, prompt, group, recorded.sampling_limit) if scorer.accepts(prompt) else None
        if after is None:
            # A group that could not be scored then either is none of the kept.
            tally.unscored += before is not None
        elif before is None:
            _weigh(tally, after.spread < recorded.min_spread, f"{group.prompt_id}: dropped, kept now")
        else:
            _weigh(tally, *_same_rewards(before, after))
    return tally


def _weigh(tally: _Tally, same: bool, where: str) -> None:
    if same:
        tally.same += 1
    else:
        tally.differ(where)


def _same_rewards(before: ScoredGroup, after: ScoredGroup) -> tuple[bool, str]:
    old = {c.index: reward for c, reward in zip(before.group.completions, before.rewards, strict=True)}
    new = {c.index: reward for c, reward in zip(after.group.completions, after.rewards, strict=True)}
    for index in sorted(old.keys() | new.keys()):
        if not _alike(old.get(index), new.get(index)):
            return False, f"{before.group.prompt_id} completion {index}: {old.get(index)} → {new.get(index)}"
    return True, ""


async def _scores(rows: Sequence[Mapping[str, Any]], prompts: Mapping[str, Prompt], scorer: Scorer) -> _Tally:
    tally = _Tally()
    for row in rows:
        prompt = prompts.get(row["prompt_id"])
        if prompt is None:
            tally.missing += 1
            continue
        if not scorer.accepts(prompt):
            tally.unscored += 1
            continue
        sides = [side for side in ("incumbent", "candidate") if row[f"{side}_tokens"]]
        scored = await scorer.absolute(prompt, [row[f"{side}_text"] for side in sides])
        if None in scored:
            tally.unscored += 1
            continue
        found = {"candidate": 0.0} | dict(zip(sides, scored, strict=True))  # no token, no answer: that is 0
        changed = [
            f"{row['prompt_id']} {side}: {row[f'{side}_score']} → {score}"
            for side, score in found.items()
            if not _alike(row[f"{side}_score"], score)
        ]
        _weigh(tally, not changed, ", ".join(changed))
    return tally


def _alike(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=0.0, abs_tol=SAME)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
