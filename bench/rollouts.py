"""Whole rollouts through the daemon's machine, with planted candidates: how many it ends, how soon, and how wrongly.

Nothing is mocked but the world: the default [rollout] with mode "auto", a look every `evaluate_seconds`, shadow pairs
and conversations drawn at random. A false abort is an end of a candidate that is no worse.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.publishing import publish
from tao_daemon.app.settings import policy_of
from tao_daemon.config import Config, Rollout
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import Policy, State
from tao_daemon.domain.events import Event, ShadowScored, TrafficMeasured
from tao_daemon.domain.rollout import RolloutMode, RolloutPhase, RolloutState, ShadowPair
from tao_daemon.domain.traffic import ArmCounts, SplitCounts

CONFIG = Rollout(mode=RolloutMode.AUTO)
CONVERSATIONS_PER_SECOND = 2.0
LONGEST_SECONDS = 12 * 3600.0
RATES = {"errors": 0.01, "slow": 0.05, "truncated": 0.02}
"""Of the incumbent: the share of conversations that ever meet such an answer."""
SPELL_SECONDS = (600.0, 1800.0)
ADAPTER = "candidate-000000000000"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A planted candidate."""

    name: str
    runs: int
    no_worse: bool
    outcomes: tuple[float, float] = (0.1, 0.1)
    """Chances that its answer to a shadow prompt is worse by 1, and better by 1."""
    risks: Mapping[str, float] = field(default_factory=dict)
    """How many times as often its conversations fail."""
    spell: Mapping[str, float] = field(default_factory=dict)
    """How many times as often those of both arms fail for a while."""


CASES = (
    Case("the incumbent itself", 400, True),
    Case("the incumbent itself, a spell of 8x slow answers", 100, True, spell={"slow": 8.0}),
    Case("better (mean +0.25)", 60, True, outcomes=(0.05, 0.30)),
    Case("subtly worse (mean -0.1)", 60, False, outcomes=(0.2, 0.1)),
    Case("degenerate (mean -0.7)", 60, False, outcomes=(0.7, 0.0)),
    Case("3x slow answers (5 % -> 15 %)", 60, False, risks={"slow": 3.0}),
    Case("3x errors (1 % -> 3 %)", 60, False, risks={"errors": 3.0}),
    Case("10x errors (1 % -> 10 %)", 60, False, risks={"errors": 10.0}),
)


@dataclass(frozen=True, slots=True)
class Ending:
    phase: RolloutPhase
    pairs: int
    """Shadow pairs of the phase it ended in (shadow and canary are one)."""
    conversations: int
    """That the candidate answered in all."""
    seconds: float


def policy() -> Policy:
    return policy_of(Config(rollout=CONFIG))


class World:
    """Draws what one rollout would see."""

    def __init__(self, case: Case, seed: Sequence[int]) -> None:
        self._case = case
        self._random = np.random.default_rng(seed)

    def shadow(self, phase: RolloutPhase) -> ShadowScored:
        worse, better = self._case.outcomes
        count = CONFIG.shadow_concurrency
        drawn = self._random.choice([-1.0, 0.0, 1.0], size=count, p=[worse, 1.0 - worse - better, better])
        return ShadowScored(ADAPTER, phase, tuple(ShadowPair("p", float(difference)) for difference in drawn))

    def traffic(self, fraction: float, now: float) -> SplitCounts:
        """The conversations between two looks."""
        arrived = int(self._random.poisson(CONVERSATIONS_PER_SECOND * CONFIG.evaluate_seconds))
        ours = int(self._random.binomial(arrived, fraction))
        spell = self._case.spell if SPELL_SECONDS[0] <= now < SPELL_SECONDS[1] else {}
        return SplitCounts(self._arm(arrived - ours, {}, spell), self._arm(ours, self._case.risks, spell))

    def _arm(self, conversations: int, risks: Mapping[str, float], spell: Mapping[str, float]) -> ArmCounts:
        failures = {
            kind: int(
                self._random.binomial(conversations, min(1.0, rate * risks.get(kind, 1.0) * spell.get(kind, 1.0)))
            )
            for kind, rate in RATES.items()
        }
        return ArmCounts(requests=conversations, conversations=conversations, **failures)


def play(case: Case, seed: Sequence[int], policy: Policy) -> Ending:
    """One rollout from its shadow to its end, or to LONGEST_SECONDS."""
    world, now, answered = World(case, seed), 0.0, 0
    rollout = RolloutState(ADAPTER, 1, RolloutPhase.SHADOW, 1, "verified", since=now, started_at=now)
    state, counts = State(rollout=rollout), dict[int, SplitCounts]()
    while rollout.phase.is_open and now < LONGEST_SECONDS:
        now += CONFIG.evaluate_seconds
        events: list[Event] = []
        if rollout.evidence.shadow.pairs < CONFIG.shadow_pairs_max:
            events.append(world.shadow(rollout.phase))
        if steps := rollout.evidence.steps:
            seen = world.traffic(steps[-1].fraction, now)
            answered += seen.candidate.conversations
            counts[steps[-1].generation] = counts.get(steps[-1].generation, SplitCounts()) + seen
        events.append(TrafficMeasured(ADAPTER, tuple(counts[step.generation] for step in steps), slow_seconds=2.0))
        for event in events:
            state = advance(state, event, policy, now).state
        assert state.rollout is not None
        rollout = state.rollout
    return Ending(rollout.phase, rollout.evidence.shadow.pairs, answered, now)


def largest_rate(hits: int, runs: int, confidence: float = 0.95) -> float:
    """The exact (Clopper-Pearson) one-sided upper bound of a rate."""
    if hits == runs:
        return 1.0

    def at_most(rate: float) -> float:
        return math.fsum(math.comb(runs, k) * rate**k * (1.0 - rate) ** (runs - k) for k in range(hits + 1))

    low, high = hits / runs, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if at_most(middle) > 1.0 - confidence else (low, middle)
    return high


def stopped(endings: Sequence[Ending]) -> int:
    return sum(ending.phase in (RolloutPhase.ABORTED, RolloutPhase.ROLLED_BACK) for ending in endings)


def row(case: Case, endings: Sequence[Ending]) -> dict[str, object]:
    phases = [ending.phase for ending in endings]
    ended = [ending for ending in endings if not ending.phase.is_open]
    return {
        "candidate": case.name,
        "runs": len(endings),
        "settled": phases.count(RolloutPhase.SETTLED),
        "aborted": phases.count(RolloutPhase.ABORTED),
        "undone": phases.count(RolloutPhase.ROLLED_BACK),
        "held": len(endings) - len(ended),
        "pairs": statistics.median(ending.pairs for ending in ended) if ended else None,
        "convs": statistics.median(ending.conversations for ending in ended) if ended else None,
        "minutes": statistics.median(ending.seconds for ending in ended) / 60.0 if ended else None,
    }


def rates(endings: Sequence[Ending]) -> dict[str, float]:
    """Of rollouts that should not have been stopped."""
    wrong, runs = stopped(endings), len(endings)
    return {"runs": runs, "false_aborts": wrong, "rate": wrong / runs, "rate_at_most_95": largest_rate(wrong, runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of runs")
    scale, rules = parser.parse_args().scale, policy()
    played = {
        case: [play(case, (number, run), rules) for run in range(max(1, round(case.runs * scale)))]
        for number, case in enumerate(CASES)
    }
    fair = [ending for case, endings in played.items() if case.no_worse for ending in endings]
    summary = {"incumbent_itself": rates(played[CASES[0]]), "all_no_worse": rates(fair)}
    publish("rollouts", [row(case, endings) for case, endings in played.items()], summary)


if __name__ == "__main__":
    main()
