"""The loop: steps over shuffled groups, looks at the dev groups, checkpoints, and the reasons to stop.

The order of groups follows from the seed alone, so a resumed training goes on with the step that it would have
taken. Training stops on the KL budget, when the dev groups say that it is past its best, and fails on anything that
is not a number; where there are dev groups the weights of the best look are what remains.

(resume) → gradient → check → move → (look) → (checkpoint) → … → best weights
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.course import Course, Step, look_steps
from tao_daemon.learning.dev_objective import DevSet
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
    """Who looks on: the dev groups, the checkpoints, the daemon."""

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
    """All steps after those of `course`, or those up to the one that found the KL budget exceeded, which moves no
    weight. Leaves the weights that are to be kept."""
    plan = schedule(len(groups), spec)
    looks = look_steps(len(plan) // spec.epochs, spec.epochs)
    over_budget = False
    for number in range(len(course.steps) + 1, len(plan) + 1):
        step = learner.gradient([groups[index] for index in plan[number - 1]])
        _check(step, number, len(plan))
        course = course.stepped(step)
        company.stepped(TrainingStepped(number, len(plan), step.loss, step.kl))
        if step.kl > spec.kl_budget:
            over_budget = True
            learner.forget_gradient()
            course = _look(learner, company.dev, course, number - 1)
            break
        learner.move()
        if number in looks:
            course = _look(learner, company.dev, course, number)
            if course.past_its_best:
                break
        if company.keeper is not None and company.keeper.due:
            company.keeper.write(Checkpoint(course, learner.state()))
    learner.return_to_best()
    return Outcome(course, over_budget, course.past_its_best)


def schedule(groups: int, spec: TrainingSpec) -> list[list[int]]:
    """The groups of every step: each once per epoch, in an order that follows from the seed."""
    steps = []
    for epoch in range(spec.epochs):
        order = random.Random(f"{spec.seed}/{epoch}").sample(range(groups), groups)
        steps += [order[first : first + spec.groups_per_step] for first in range(0, groups, spec.groups_per_step)]
    return steps


def _check(step: Step, number: int, of: int) -> None:
    if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
        raise TrainingError(
            f"step {number} of {of}: loss {step.loss}, gradient norm {step.gradient_norm}; lower training.learning_rate"
        )


def _look(learner: Learner, dev: DevSet | None, course: Course, moved: int) -> Course:
    """Look after so many moves, unless that was done."""
    if dev is None or moved == 0 or (course.looks and course.looks[-1].step == moved):
        return course
    look = dev.look(moved)
    if not math.isfinite(look.improvement):
        raise TrainingError(f"after step {moved} the dev groups give no numbers; lower training.learning_rate")
    if course.best is None or look.improvement > course.best.improvement:
        learner.mark_best()
    return course.looked(look)
