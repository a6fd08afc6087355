"""What a finished round shows: reward distributions, answers side by side, two rounds beside each other. Pure.

Values of every answer are plain JSON: a number that is missing or not finite is null.
archive rows and reports → counts, intervals and words
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tao_daemon.domain.completion import PLAIN, CompletionGroup, ScoredGroup
from tao_daemon.domain.report import AnswerPage
from tao_daemon.domain.round import Phase

_Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
_SIDES = ("incumbent", "candidate")
_HEAD = ("outcome", "outcome_reason", "reason", "incumbent", "candidate", "started_at", "ended_at")
_PROVENANCE = ("seed", "version", "config_digest")
_STAGES = ("", *(phase.value for phase in Phase), "gate")


def reward_distribution(
    groups: Sequence[CompletionGroup], scored: Sequence[ScoredGroup], *, bins: int = 20
) -> dict[str, Any]:
    """Histograms of the rewards per strategy, the plain one first. `scored` are the groups that were kept.

    `bins` of equal width over [0, 1], each with its lower edge, the last with both. `completions` were sampled,
    `scored` have a reward: those of dropped groups, and those that only our own length limit cut off, have none.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    sampled: dict[str, int] = {}
    for group in groups:
        for completion in group.completions:
            sampled[completion.strategy] = sampled.get(completion.strategy, 0) + 1
    rewards: dict[str, list[float]] = {}
    for kept in scored:
        for completion, reward in zip(kept.group.completions, kept.rewards, strict=True):
            if math.isfinite(reward):
                rewards.setdefault(completion.strategy, []).append(reward)
    names = sorted(sampled.keys() | rewards.keys(), key=lambda name: (name != PLAIN, name))
    return {
        "bins": bins,
        "edges": [place / bins for place in range(bins + 1)],
        "strategies": [_strategy(name, sampled.get(name, 0), rewards.get(name, []), bins) for name in names],
        "groups": len(groups),
        "kept": len(scored),
        "dropped": max(0, len(groups) - len(scored)),
    }


def _strategy(name: str, completions: int, rewards: Sequence[float], bins: int) -> dict[str, Any]:
    counts = [0] * bins
    for reward in rewards:
        counts[min(bins - 1, max(0, int(reward * bins)))] += 1
    mean = math.fsum(rewards) / len(rewards) if rewards else None
    return {"name": name, "completions": completions, "scored": len(rewards), "mean": mean, "counts": counts}


def answers(page: AnswerPage, texts: Mapping[str, str]) -> dict[str, Any]:
    """A page of the gate's answers beside each other, and how often the candidate wins.

    `texts` are the prompts of the page's rows by id; one that is not there was erased. The win rate counts a tie as
    half a win: null without a scored pair.
    """
    compared = page.wins + page.ties + page.losses
    rate = (page.wins + page.ties / 2) / compared if compared else None
    return {
        "total": page.total,
        "rows": [_side_by_side(row, texts.get(str(row["prompt_id"]))) for row in page.rows],
        "wins": page.wins,
        "ties": page.ties,
        "losses": page.losses,
        "win_rate": rate,
        "win_rate_ci95": list(wilson(rate, compared)) if rate is not None else None,
    }


def _side_by_side(row: Mapping[str, Any], prompt: str | None) -> dict[str, Any]:
    scores = {side: number(row[f"{side}_score"]) for side in _SIDES}
    return {
        "prompt_id": row["prompt_id"],
        "prompt": prompt,
        **{f"{side}_text": row[f"{side}_text"] for side in _SIDES},
        **{f"{side}_score": scores[side] for side in _SIDES},
        "difference": change(scores["incumbent"], scores["candidate"]),
        **{f"{side}_tokens": row[f"{side}_tokens"] for side in _SIDES},
        **{f"{side}_truncated": row[f"{side}_truncated"] for side in _SIDES},
    }


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Two-sided 95 % interval of a proportion `rate` of `count` > 0 trials (Wilson, JASA 22, 1927, p. 209).

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n). A mean of wins, losses and ties at half a win varies no more
    than a proportion with the same mean, so with ties the interval is never too narrow for them.
    """
    square = _Z95 * _Z95 / count
    middle = rate + square / 2
    half = _Z95 * math.sqrt(rate * (1 - rate) / count + square / (4 * count))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def compare(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Two reports beside each other: what they are, then every figure phase by phase, then the gate's.

    `change` is right − left where both are numbers. What only one of them has is null in the other.
    """
    mine, other = _figures(left), _figures(right)
    names = sorted(dict.fromkeys([*mine, *other]), key=_stage)
    return {
        "left": left.get("round"),
        "right": right.get("round"),
        "rows": [_row(name, mine.get(name), other.get(name)) for name in names],
    }


def _row(name: str, left: Any, right: Any) -> dict[str, Any]:
    return {"name": name, "left": left, "right": right, "change": change(number(left), number(right))}


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report as flat names and plain values."""
    found = {name: _plain(report.get(name)) for name in _HEAD}
    for phase, figures in (report.get("phases") or {}).items():
        # The same for every phase, unless a restart brought another version or configuration: the last one tells.
        found |= {name: _plain(figures[name]) for name in _PROVENANCE if name in figures}
        found |= {f"{phase}.{name}": _plain(value) for name, value in figures.items() if name not in _PROVENANCE}
    if verdict := report.get("verdict"):
        found["gate.decision"] = verdict.get("decision")
        found |= {f"gate.{name}": _plain(value) for name, value in (verdict.get("numbers") or {}).items()}
    return found


def _stage(name: str) -> int:
    """Where a figure belongs: the report itself, a phase, the gate."""
    stage, dot, _ = name.partition(".")
    return _STAGES.index(stage) if dot and stage in _STAGES else 0


def _plain(value: Any) -> Any:
    """A value for a table: text, number, truth or null; a list as text, anything else with parts counts by nothing."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    if isinstance(value, bool | str) or value is None:
        return value
    return number(value)


def change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def number(value: Any) -> float | None:
    """A finite number, or None for whatever is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
