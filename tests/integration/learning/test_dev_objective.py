"""The dev groups' estimate against its formula, and the weights that it chooses."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.learning.advantage import select
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.course import Course, Look
from tao_daemon.learning.dev_objective import MAX_WEIGHT, DevSet
from tao_daemon.learning.dev_split import DevGroup, split
from tao_daemon.learning.kl_meter import KlMeter
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.objectives.registry import build_objective
from tao_daemon.learning.optimisation import Company, optimise
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.parallel import ALONE
from tao_daemon.learning.peft_policy import Policy
from tao_daemon.learning.reference import reference

Many = Callable[[int], list[ScoredGroup]]


@pytest.fixture
def groups(many: Many) -> tuple[DevGroup, ...]:
    return split(many(32), 0.4, min_spread=0.05, max_sequence_tokens=64).dev


def moved(policy: Policy, size: float) -> Policy:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(torch.randn_like(parameter) * size)
    return policy


def sequence_logprob(policy: Policy, prompt: tuple[int, ...], completion: tuple[int, ...]) -> float:
    (pack,) = pack_group(prompt, [completion], 1000)
    with torch.no_grad():
        return float(policy.logprobs(pack).double().sum())


@pytest.mark.parametrize("max_tokens", [1000, 12])
def test_the_estimate_is_the_formula(policy: Policy, groups: tuple[DevGroup, ...], max_tokens: int) -> None:
    dev = DevSet(policy, groups, ALONE, max_tokens)
    assert dev.look(0).improvement == pytest.approx(0, abs=1e-9)
    assert dev.look(0).weight_share == pytest.approx(1)
    start = [[sequence_logprob(policy, g.prompt_token_ids, s.token_ids) for s in g.samples] for g in groups]
    moved(policy, 0.2)
    gains, clamped = [], 0
    for group, before in zip(groups, start, strict=True):
        now = [sequence_logprob(policy, group.prompt_token_ids, s.token_ids) for s in group.samples]
        ratios = torch.tensor(now).sub(torch.tensor(before)).exp()
        clamped += int((ratios > MAX_WEIGHT).sum())
        weights, rewards = ratios.clamp(max=MAX_WEIGHT).tolist(), [s.reward for s in group.samples]
        gains.append(
            sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights) - statistics.fmean(rewards)
        )
    found = dev.look(7)
    assert found.improvement == pytest.approx(statistics.fmean(gains), abs=1e-4)
    assert found.error == pytest.approx(statistics.stdev(gains) / len(gains) ** 0.5, abs=1e-4)
    assert found.step == 7
    assert abs(found.improvement) > 1e-3
    assert 0 < found.weight_share < 1
    assert clamped


def test_training_on_the_rest_improves_it(
    policy: Policy, spec: TrainingSpec, many: Many, groups: tuple[DevGroup, ...]
) -> None:
    outcome, _ = optimised(policy, replace(spec, clip_high=9.0), many, DevSet(policy, groups, ALONE, 1000))
    assert outcome.best is not None
    assert outcome.best.improvement > 0.05


def optimised(policy: Policy, spec: TrainingSpec, many: Many, dev: Any) -> tuple[Course, list[int]]:
    training = split(many(32), 0.4, min_spread=0.05, max_sequence_tokens=64).training
    chosen = select(training, build_objective(spec, training), min_spread=0.05, max_sequence_tokens=64)
    learner = Learner(policy, chosen.objective, spec, ALONE)
    told: list[int] = []
    meter = KlMeter(policy, chosen.groups, spec)
    company = Company(meter, dev, None, lambda step: told.append(step.step))
    outcome = optimise(learner, reference(policy, chosen, spec), spec, company, Course())
    assert outcome.past_its_best == outcome.course.past_its_best
    return outcome.course, told


class Scripted:
    """Dev groups that say what they are told, and remember the weights they saw."""

    def __init__(self, policy: Policy, improvements: list[float]) -> None:
        self._policy, self._left = policy, improvements
        self.seen: list[torch.Tensor] = []

    def look(self, step: int) -> Look:
        self.seen.append(torch.cat([parameter.detach().flatten().clone() for parameter in self._policy.parameters]))
        return Look(step, self._left.pop(0), 0.06, 1.0)


def test_it_stops_past_its_best_and_returns_to_it(policy: Policy, spec: TrainingSpec, many: Many) -> None:
    dev = Scripted(policy, [0.1, 0.3, 0.2, 0.25, 0.2, 0.2, 9.0])
    course, told = optimised(policy, replace(spec, epochs=9), many, dev)
    assert [look.improvement for look in course.looks] == [0.1, 0.3, 0.2, 0.25, 0.2, 0.2]
    assert course.kept == course.looks[3].step  # within an error of the best, and later
    assert course.looks[-1].step == told[-1] == len(course.steps)
    kept = torch.cat([parameter.detach().flatten() for parameter in policy.parameters])
    assert torch.equal(kept, dev.seen[3])
    assert not torch.equal(kept, dev.seen[5])
