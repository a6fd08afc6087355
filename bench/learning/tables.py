"""Cells to rows: scores with intervals, paired differences to the base model, costs. Pure.

Held-out prompts of several seeds are pooled: they are different prompts. A cell's costs are sums over its rounds.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tao_daemon.domain.report import Decision, Interval
from tao_daemon.evaluation.statistics import bootstrap_mean

CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 0
BASE = "base"
Cells = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Estimate:
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Row:
    """One column and setting on one task, at the end of its rounds. Seconds and completions are means over seeds."""

    column: str
    setting: str
    seeds: int
    rounds: int
    passed: float | None
    """Rounds whose candidate passed the gate, mean over seeds; None where there is none."""
    score: Estimate
    by_seed: tuple[float, ...]
    gain: Estimate | None
    """Paired difference to the base model on the same prompts; None for the base model, or before it ran."""
    exact: float
    reward: float
    tokens: float
    completions: float
    sampling: float
    scoring: float
    training: float
    kl: float | None
    """Nats per answer, to the base model; None where it was not measured."""


def rows(cells: Cells) -> list[Row]:
    """Of the cells of one plan and task; the base model first, then in order of the score."""
    groups: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[cell["column"], cell["setting"]].append(cell)
    base = {cell["seed"]: last_scores(cell) for cell in cells if cell["column"] == BASE}
    found = [_row(column, setting, group, base) for (column, setting), group in groups.items()]
    return sorted(found, key=lambda row: (row.column != BASE, -row.score.mean, row.column))


def _row(column: str, setting: str, cells: Cells, base: Mapping[int, Sequence[float]]) -> Row:
    last = [cell["rounds"][-1] for cell in cells]

    def mean_sum(name: str) -> float:
        return statistics.fmean(sum(each[name] for each in cell["rounds"]) for cell in cells)

    def mean_of(name: str) -> float:
        return statistics.fmean(each["held_out"][name] or 0.0 for each in last)

    distances = [each["divergence"]["from_base"] for each in last if each["divergence"]]
    return Row(
        column=column,
        setting=setting,
        seeds=len(cells),
        rounds=max(each["round"] for each in last),
        passed=_passed(cells),
        score=estimate([score for cell in cells for score in last_scores(cell)], (0.0, 1.0)),
        by_seed=tuple(each["held_out"]["score"] for each in last),
        gain=gain(cells, base) if column != BASE else None,
        exact=mean_of("exact"),
        reward=mean_of("reward"),
        tokens=mean_of("mean_tokens"),
        completions=mean_sum("completions"),
        sampling=mean_sum("sampling_seconds"),
        scoring=mean_sum("scoring_seconds"),
        training=mean_sum("training_seconds"),
        kl=statistics.fmean(distances) if distances and len(distances) == len(last) else None,
    )


def _passed(cells: Cells) -> float | None:
    verdicts = [[each["details"].get("verdict") for each in cell["rounds"]] for cell in cells]
    if not any(verdicts[0]):
        return None
    return statistics.fmean(found.count(Decision.PASS.value) for found in verdicts)


def gain(cells: Cells, base: Mapping[int, Sequence[float]]) -> Estimate | None:
    """Prompt by prompt, over the seeds of which the base model ran."""
    return _paired((last_scores(cell), base[cell["seed"]]) for cell in cells if cell["seed"] in base)


def versus(cells: Cells, column: str, other: str) -> tuple[Estimate, int] | None:
    """Paired difference of two columns on the prompts of the seeds that both have, after the last round that all of
    their cells have, and that round; the base model stands for itself in every round."""
    ours = {cell["seed"]: cell["rounds"] for cell in cells if cell["column"] == column}
    theirs = {cell["seed"]: cell["rounds"] for cell in cells if cell["column"] == other}
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    of_both = [ours, theirs] if other != BASE else [ours]
    rounds = min(len(side[seed]) for seed in seeds for side in of_both)
    found = _paired(
        (_scores(ours[seed][rounds - 1]), _scores(theirs[seed][min(rounds, len(theirs[seed])) - 1])) for seed in seeds
    )
    return (found, rounds) if found else None


def _paired(sides: Iterable[tuple[Sequence[float], Sequence[float]]]) -> Estimate | None:
    differences = [a - b for after, before in sides for a, b in zip(after, before, strict=True)]
    return estimate(differences, (-1.0, 1.0)) if differences else None


def curve(cells: Cells) -> list[Estimate]:
    """Score after each round, over the seeds; as many rounds as every cell has."""
    rounds = min(len(cell["rounds"]) for cell in cells)
    return [
        estimate([score for cell in cells for score in cell["rounds"][place]["held_out"]["scores"]], (0.0, 1.0))
        for place in range(rounds)
    ]


def last_scores(cell: Mapping[str, Any]) -> Sequence[float]:
    return _scores(cell["rounds"][-1])


def _scores(each: Mapping[str, Any]) -> Sequence[float]:
    scores: Sequence[float] = each["held_out"]["scores"]
    return scores


def estimate(values: Sequence[float], support: tuple[float, float]) -> Estimate:
    """Mean with the percentile bootstrap's interval."""
    found = bootstrap_mean(values, support=support, confidence=CONFIDENCE, resamples=RESAMPLES, seed=SEED)
    interval: Interval = found.percentile
    return Estimate(found.mean, interval.low, interval.high)


def markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(found: Sequence[Row]) -> str:
    """The proof table of one task."""
    header = (
        "column", "setting", "rounds", "held-out score", "gain over base (paired)", "all right", "reward",
        "tokens per answer", "completions", "s sampling / scoring / training", "KL to base",
    )  # fmt: skip
    return markdown(header, [_cells(row) for row in found])


def _cells(row: Row) -> list[str]:
    seconds = " / ".join(f"{value:.0f}" for value in (row.sampling, row.scoring, row.training))
    spread = f" ({min(row.by_seed):.2f}–{max(row.by_seed):.2f})" if row.seeds > 1 else ""
    return [
        f"`{row.column}`",
        row.setting or "—",
        (str(row.rounds) if row.rounds else "—") + (f" ({row.passed:.2g} passed)" if row.passed is not None else ""),
        f"{row.score}{spread}",
        str(row.gain) if row.gain else "—",
        f"{row.exact:.0%}",
        f"{row.reward:.2f}",
        f"{row.tokens:.1f}",
        f"{row.completions:.0f}",
        seconds if row.training else "—",
        "—" if row.kl is None else f"{row.kl:.1f}",
    ]
