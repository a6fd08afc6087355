"""Which objective a name in the config stands for.

Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.objectives.clipped import ClippedPolicyGradient
from tao_daemon.learning.objectives.grpo import Grpo
from tao_daemon.learning.objectives.oapl import Oapl, policy_temperature
from tao_daemon.learning.objectives.objective import Objective
from tao_daemon.learning.objectives.raft import Raft
from tao_daemon.learning.objectives.ratios import Clip


def build_objective(spec: TrainingSpec, groups: Sequence[ScoredGroup]) -> Objective:
    """The objective of `spec.algorithm`. `groups` are the whole batch: what depends on the round is taken from them."""
    return OBJECTIVES[spec.algorithm](spec, groups)


def _clipped(spec: TrainingSpec, groups: Sequence[ScoredGroup]) -> Objective:
    return ClippedPolicyGradient(_clip(spec))


def _grpo(spec: TrainingSpec, groups: Sequence[ScoredGroup]) -> Objective:
    return Grpo(_clip(spec))


def _oapl(spec: TrainingSpec, groups: Sequence[ScoredGroup]) -> Objective:
    chosen = spec.policy_temperature or policy_temperature(_median_tokens(groups))
    return Oapl(spec.value_temperature, chosen)


def _raft(spec: TrainingSpec, groups: Sequence[ScoredGroup]) -> Objective:
    return Raft()


OBJECTIVES: Mapping[str, Callable[[TrainingSpec, Sequence[ScoredGroup]], Objective]] = {
    "clipped_policy_gradient": _clipped,
    "grpo": _grpo,
    "oapl": _oapl,
    "raft": _raft,
}


def _clip(spec: TrainingSpec) -> Clip:
    return Clip(spec.clip_low, spec.clip_high, spec.strategy_clip_high)


def _median_tokens(groups: Sequence[ScoredGroup]) -> float:
    lengths = [len(c.token_ids) for scored in groups for c in scored.group.completions if c.token_ids]
    return float(statistics.median(lengths)) if lengths else 1.0
