"""How far a training has come: what was measured at every step and at every look.

Pure. Values only; weights are elsewhere.

steps and looks → whether to stop, and why → metrics
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE = 2
"""Looks in a row that are worse than the best by more than its standard error, after which training stops."""
LOOKS_PER_EPOCH = 4
"""A look costs a forward pass over the dev groups, which are not trained on: four cost about what is saved by that."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, measured before the weights moved."""

    loss: float
    gradient_norm: float
    clipped: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the dev groups."""

    step: int
    """Optimizer steps that had moved the weights before it."""
    improvement: float
    """Estimated gain in reward over the start."""
    error: float
    """Its standard error over the dev groups."""
    weight_share: float
    """How much of the samples carries the estimate, in (0, 1]."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the policy had gone from its start."""

    step: int
    """Optimizer steps that had moved the weights."""
    kl: float
    """Mean per token of KL(π₀‖πθ), nats."""


@dataclass(frozen=True, slots=True)
class Course:
    steps: tuple[Step, ...] = ()
    looks: tuple[Look, ...] = ()
    distances: tuple[Distance, ...] = ()
    kept: int = 0
    """Steps that had moved the weights which would remain if training ended here; 0: none can."""

    @property
    def kl(self) -> float:
        """The latest distance from the start."""
        return self.distances[-1].kl if self.distances else 0.0

    @property
    def best(self) -> Look | None:
        """The first of the best looks."""
        return max(self.looks, key=lambda look: look.improvement, default=None)

    @property
    def past_its_best(self) -> bool:
        """Whether the latest looks were all worse than the best before them."""
        earlier = dataclasses.replace(self, looks=self.looks[:-PATIENCE])
        return bool(earlier.looks) and not any(earlier.stands(look) for look in self.looks[-PATIENCE:])

    def stands(self, look: Look) -> bool:
        """Whether it is the best, or worse by no more than the best's standard error: then of two the later is taken,
        whose learning rate had fallen further (the rule of one standard error: Breiman, Friedman, Olshen and Stone,
        Classification and Regression Trees, 1984, 3.4.3).
        """
        return self.best is None or look.improvement >= self.best.improvement - self.best.error

    def stepped(self, step: Step) -> Course:
        return dataclasses.replace(self, steps=(*self.steps, step))

    def looked(self, look: Look) -> Course:
        return dataclasses.replace(self, looks=(*self.looks, look))

    def went(self, distance: Distance) -> Course:
        return dataclasses.replace(self, distances=(*self.distances, distance))

    def keeping(self, step: int) -> Course:
        """The weights after so many steps are those to keep."""
        return dataclasses.replace(self, kept=step)

    def metrics(self) -> dict[str, float]:
        """Raises ValueError before the first step."""
        if not self.steps:
            raise ValueError("a training without a step has no metrics")
        found = {
            "steps": float(len(self.steps)),
            "loss": self.steps[-1].loss,
            "steps_kept": float(self.kept),
            "kl": next((distance.kl for distance in self.distances if distance.step == self.kept), 0.0),
            "kl_max": max((distance.kl for distance in self.distances), default=0.0),
            "gradient_norm": statistics.fmean(step.gradient_norm for step in self.steps),
            "clipped_fraction": statistics.fmean(step.clipped for step in self.steps),
            "tokens": float(sum(step.tokens for step in self.steps)),
        }
        kept = next((look for look in self.looks if look.step == self.kept), None)
        if kept is not None and self.best is not None:
            found["dev_improvement"] = kept.improvement
            found["dev_error"] = kept.error
            found["dev_weight_share"] = kept.weight_share
            found["dev_improvement_best"] = self.best.improvement
            found["dev_best_step"] = float(self.best.step)
            found["dev_looks"] = float(len(self.looks))
        return found


def look_steps(steps_per_epoch: int, epochs: int) -> frozenset[int]:
    """The steps after which to look: about every quarter of an epoch, and at the end of each."""
    quarters = {-(-quarter * steps_per_epoch // LOOKS_PER_EPOCH) for quarter in range(1, LOOKS_PER_EPOCH + 1)}
    return frozenset(epoch * steps_per_epoch + step for epoch in range(epochs) for step in quarters)


def rate_share(number: int, of: int) -> float:
    """Share of the learning rate at a step, numbered from 1: it rises over the first tenth and falls to nearly 0."""
    rising = of // 10
    return number / (rising + 1) if number <= rising else (of - number + 1) / (of - rising)


def course_from_json(data: Mapping[str, Any]) -> Course:
    """The inverse of `dataclasses.asdict`. Raises KeyError or TypeError for anything else."""
    steps = tuple(Step(**step) for step in data["steps"])
    looks = tuple(Look(**look) for look in data["looks"])
    return Course(steps, looks, tuple(Distance(**each) for each in data["distances"]), data["kept"])
