"""Each objective against an independent reference: plain loops over plain floats, straight from the formula."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.contract import ALGORITHMS, TrainingSpec
from tao_daemon.learning.objectives.clipped import ClippedPolicyGradient
from tao_daemon.learning.objectives.grpo import Grpo
from tao_daemon.learning.objectives.oapl import Oapl, policy_temperature
from tao_daemon.learning.objectives.objective import Fixed, Objective, Sizes
from tao_daemon.learning.objectives.raft import Raft
from tao_daemon.learning.objectives.ratios import Clip
from tao_daemon.learning.objectives.registry import OBJECTIVES, build_objective

CLIP = Clip(0.2, 0.28, 1.5)
VALUE, POLICY = 0.7, 0.05
ALL: dict[str, Objective] = {
    "clipped_policy_gradient": ClippedPolicyGradient(CLIP),
    "grpo": Grpo(CLIP),
    "oapl": Oapl(VALUE, POLICY),
    "raft": Raft(),
}
SIZES = Sizes(longest=9, per_group=20.0, per_sample=5.0)
REWARDS = st.lists(st.tuples(st.floats(0, 1, width=16), st.booleans()), min_size=1, max_size=9)


@dataclass(frozen=True)
class Sequence:
    """One completion: log πθ, log π₀ and w per token."""

    now: list[float]
    start: list[float]
    weights: list[float]
    advantage: float
    plain: bool = True


def sequences(seed: int) -> list[Sequence]:
    rng = random.Random(seed)
    found = []
    for length in (4, 7, 1, 9, 3):
        start = [-rng.expovariate(0.7) for _ in range(length)]
        now = [value + rng.gauss(0, 0.4 if length < 9 else 0.9) for value in start]
        weights = [0.0] * length if length == 7 else [rng.uniform(0.5, 2.0) for _ in range(length)]
        found.append(Sequence(now, start, weights, rng.uniform(-0.6, 0.9), plain=True))
    found.append(Sequence([-0.1, -2.0, -4.0, -1.0], [-0.6, -2.5, -5.5, -0.9], [1.0] * 4, 0.4, plain=False))
    return found


def surrogate(group: list[Sequence]) -> float:
    total = 0.0
    for sequence in group:
        for now, start, weight in zip(sequence.now, sequence.start, sequence.weights, strict=True):
            ratio = math.exp(now - start)
            kept = min(max(ratio, 0.8), 1.28 if sequence.plain else 2.5)
            total += weight * min(ratio * sequence.advantage, kept * sequence.advantage)
    return total


def squares(group: list[Sequence]) -> float:
    total = 0.0
    for sequence in group:
        moved = 0.0
        for now, start in zip(sequence.now, sequence.start, strict=True):
            moved += now - start
        total += (POLICY * moved - sequence.advantage) ** 2
    return total


def likelihood(group: list[Sequence]) -> float:
    total = 0.0
    for sequence in group:
        for now in sequence.now:
            total += now
    return total


LOSSES: dict[str, Callable[[list[Sequence]], float]] = {
    "clipped_policy_gradient": lambda group: -surrogate(group) / (len(group) * 9),
    "grpo": lambda group: -surrogate(group) / 20.0,
    "oapl": lambda group: squares(group) / len(group),
    "raft": lambda group: -likelihood(group) / (len(group) * 5.0),
}


def tensors(objective: Objective, group: list[Sequence]) -> tuple[torch.Tensor, Fixed]:
    def flat(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor([value for row in rows for value in row], dtype=torch.float64)

    owners = torch.tensor([index for index, sequence in enumerate(group) for _ in sequence.now])
    fixed = Fixed(
        owners_T=owners,
        reference_T=flat([s.start for s in group]),
        weights_T=flat([s.weights for s in group]),
        plain_T=torch.tensor([s.plain for s in group for _ in s.now]),
        advantages_S=torch.tensor([s.advantage for s in group], dtype=torch.float64),
        scales_S=torch.full((len(group),), objective.scale(len(group), SIZES), dtype=torch.float64),
    )
    return flat([s.now for s in group]).requires_grad_(), fixed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ALL)
def test_loss_and_gradient_equal_the_reference(name: str, seed: int) -> None:
    group = sequences(seed)
    now, fixed = tensors(ALL[name], group)
    loss = ALL[name].loss(now, fixed)
    assert loss.item() == pytest.approx(LOSSES[name](group), rel=1e-12)

    (gradient,) = torch.autograd.grad(loss, now)
    slopes = []
    for sequence in group:
        for token in range(len(sequence.now)):
            ends = []
            for shift in (1e-6, -1e-6):
                moved = [value + shift * (place == token) for place, value in enumerate(sequence.now)]
                changed = [replace(s, now=moved) if s is sequence else s for s in group]
                ends.append(LOSSES[name](changed))
            slopes.append((ends[0] - ends[1]) / 2e-6)
    assert gradient.tolist() == pytest.approx(slopes, abs=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_autograd_agrees_with_finite_differences(name: str) -> None:
    now, fixed = tensors(ALL[name], sequences(11))
    assert torch.autograd.gradcheck(lambda values: ALL[name].loss(values, fixed), (now,))


@pytest.mark.parametrize("name", ALL)
def test_a_group_in_two_parts_has_the_same_loss(name: str) -> None:
    group = sequences(5)
    now, fixed = tensors(ALL[name], group)
    cut = sum(len(sequence.now) for sequence in group[:2])
    first = Fixed(**{f.name: getattr(fixed, f.name)[: 2 if f.name.endswith("S") else cut] for f in fields(Fixed)})
    last = Fixed(**{f.name: getattr(fixed, f.name)[2 if f.name.endswith("S") else cut :] for f in fields(Fixed)})
    last = replace(last, owners_T=last.owners_T - 2)
    parts = ALL[name].loss(now[:cut], first) + ALL[name].loss(now[cut:], last)
    assert parts.item() == pytest.approx(ALL[name].loss(now, fixed).item(), rel=1e-12)


@pytest.mark.parametrize("name", ALL)
@given(drawn=REWARDS)
def test_advantages_equal_the_formula(name: str, drawn: list[tuple[float, bool]]) -> None:
    rewards, is_plain = [reward for reward, _ in drawn], [own for _, own in drawn]
    plain = [reward for reward, own in drawn if own]
    if not plain:
        with pytest.raises(ValueError, match="no baseline"):
            ALL[name].advantages(rewards, is_plain)
        return
    mean = sum(plain) / len(plain)
    overall = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - overall) ** 2 for r in rewards) / (len(rewards) - 1)) if len(rewards) > 1 else 0.0
    value = VALUE * math.log(sum(math.exp(r / VALUE) for r in plain) / len(plain))
    expected = {
        "clipped_policy_gradient": [r - mean for r in rewards],
        "grpo": [(r - mean) / (std + 1e-4) for r in rewards],
        "oapl": [r - value for r in rewards],
        "raft": [r - mean if r == max(rewards) else 0.0 for r in rewards],
    }
    assert ALL[name].advantages(rewards, is_plain) == pytest.approx(expected[name], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("temperature", "value"), [(1e-3, 0.9), (1e6, 0.5)])
def test_the_value_goes_from_the_best_to_the_mean_without_overflow(temperature: float, value: float) -> None:
    (advantage,) = Oapl(temperature, 0.1).advantages([0.1, 0.5, 0.9], [True] * 3)[:1]
    assert 0.1 - advantage == pytest.approx(value, abs=2e-3)


@pytest.mark.parametrize(("tokens", "expected"), [(1, 0.5), (100, 0.1), (5000, 0.005)])
def test_policy_temperature_follows_the_length_within_bounds(tokens: float, expected: float) -> None:
    assert policy_temperature(tokens) == expected


def test_a_strategy_is_kept_only_when_it_is_better_and_plain_always_but_by_raft() -> None:
    for name, objective in ALL.items():
        assert objective.keeps(0.1, plain=False)
        assert not objective.keeps(0.0, plain=False)
        assert not objective.keeps(1e-16, plain=False)
        assert objective.keeps(0.0, plain=True) == (name != "raft")


def test_only_clipped_objectives_correct_the_sampler_or_clip() -> None:
    group = sequences(2)
    for name, objective in ALL.items():
        now, fixed = tensors(objective, group)
        far = objective.weights_T(fixed.reference_T, fixed.reference_T - 3.0, fixed.owners_T)
        moved = objective.clipped_T(now + 5.0 * fixed.advantages_S[fixed.owners_T].sign(), fixed)
        uses_ratios = name in ("clipped_policy_gradient", "grpo")
        assert bool((far == (0.0 if uses_ratios else 1.0)).all())
        assert bool((moved == uses_ratios).all())


def spec(algorithm: str, **changes: float) -> TrainingSpec:
    values: dict[str, object] = {field.name: 0 for field in fields(TrainingSpec)}
    values |= {
        "algorithm": algorithm,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "strategy_clip_high": 1.5,
        "value_temperature": VALUE,
        **changes,
    }
    return TrainingSpec(**values)  # type: ignore[arg-type]


def scored(*lengths: int) -> ScoredGroup:
    completions = tuple(Completion(i, PLAIN, "", (1,) * n, (-1.0,) * n, "stop") for i, n in enumerate(lengths))
    return ScoredGroup(CompletionGroup("p", (1,), completions), (0.0,) * len(lengths), ())


def test_every_name_in_the_config_is_an_objective() -> None:
    assert set(OBJECTIVES) == set(ALGORITHMS) == set(ALL)
    for name, objective in ALL.items():
        assert build_objective(spec(name, policy_temperature=POLICY), []) == objective


def test_the_policy_temperature_is_the_rounds_unless_it_is_set() -> None:
    groups = [scored(20, 40, 0), scored(50, 200)]
    assert build_objective(spec("oapl", policy_temperature=0.0), groups) == Oapl(VALUE, 10 / 45)
    assert build_objective(spec("oapl", policy_temperature=0.3), groups) == Oapl(VALUE, 0.3)
