"""The loop: steps over shuffled groups, looks at the dev groups, checkpoints, and the reasons to stop.

The order of groups follows from the seed alone, so a resumed training goes on with the step that it would have
taken. At every look the distance from the start is measured. Training stops when that exceeds the KL budget or when
the dev groups say that it is past its best, and fails on anything that is not a number. What remains are the weights
of the latest look, with dev groups of the latest that is not worse than the best; weights beyond the budget never do.

(resume) → gradient → check → move → (look) → (checkpoint) → … → kept weights
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.course import Course, Distance, Step, look_steps, rate_share
from tao_daemon.learning.dev_objective import DevSet
from tao_daemon.learning.kl_meter import KlMeter
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.reference import ReferenceGroup
from tao_daemon.learning.resuming import Checkpoint, Keeper

Stepped = Callable[[TrainingStepped], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    course: Course
    over_budget: bool
    past_its_best: bool


@dataclass(frozen=True, slots=True)
class Company:
    """Who looks on: the distance from the start, the dev groups, the checkpoints, the daemon."""

    meter: KlMeter
    dev: DevSet | None
    keeper: Keeper | None
    stepped: Stepped


def optimise(
    learner: Learner,
    groups: Sequence[ReferenceGroup],
    spec: TrainingSpec,
    company: Company,
    course: Course,
) -> Outcome:
    """All steps after those of `course`, or those up to a reason to stop. Leaves the weights that are to be kept.

    Raises TrainingError on what is not a number, and when the first look already finds the KL budget exceeded.
    """
    plan = schedule(len(groups), spec)
    looks = look_steps(len(plan) // spec.epochs, spec.epochs)
    for number in range(len(course.steps) + 1, len(plan) + 1):
        step = learner.gradient([groups[index] for index in plan[number - 1]])
        _check(step, number, len(plan), spec)
        learner.move(rate_share(number, len(plan)))
        course = course.stepped(step)
        if number in looks:
            course = _look(learner, spec, company, course)
        company.stepped(TrainingStepped(number, len(plan), step.loss, course.kl))
        if course.kl > spec.kl_budget or course.past_its_best:
            break
        if company.keeper is not None and company.keeper.due:
            company.keeper.write(Checkpoint(course, learner.state()))
    learner.return_to_kept()
    return Outcome(course, course.kl > spec.kl_budget, course.past_its_best)


def schedule(groups: int, spec: TrainingSpec) -> list[list[int]]:
    """The groups of every step: each once per epoch, in an order that follows from the seed."""
    steps = []
    for epoch in range(spec.epochs):
        order = random.Random(f"{spec.seed}/{epoch}").sample(range(groups), groups)
        steps += [order[first : first + spec.groups_per_step] for first in range(0, groups, spec.groups_per_step)]
    return steps


def _check(step: Step, number: int, of: int, spec: TrainingSpec) -> None:
    if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
        raise TrainingError(
            f"step {number} of {of}: loss {step.loss}, gradient norm {step.gradient_norm}; lower {spec.rate_key}"
        )


def _look(learner: Learner, spec: TrainingSpec, company: Company, course: Course) -> Course:
    """Measure the weights as they are, and keep them when they are the ones to keep."""
    number = len(course.steps)
    kl = company.meter.nats()
    if math.isnan(kl):
        raise TrainingError(f"after step {number} the policy gives no numbers; lower {spec.rate_key}")
    course = course.went(Distance(number, kl))
    if kl > spec.kl_budget:
        if not course.kept:
            raise TrainingError(
                f"after step {number}, the first look, the policy is {kl:.3g} nats per token from its start, "
                f"training.kl_budget is {spec.kl_budget:g}; lower {spec.rate_key}, or raise the budget"
            )
        return course
    if company.dev is None:
        learner.keep()
        return course.keeping(number)
    look = company.dev.look(number)
    if not math.isfinite(look.improvement):
        raise TrainingError(f"after step {number} the dev groups give no numbers; lower {spec.rate_key}")
    course = course.looked(look)
    if not course.stands(look):
        return course
    learner.keep()
    return course.keeping(number)
