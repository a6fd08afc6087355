"""When training is past its best, and what its metrics say."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tao_daemon.learning.course import Course, Distance, Look, Step, course_from_json, look_steps, rate_share


def course(*improvements: float, error: float = 0.0, kept: int = 1) -> Course:
    looks = tuple(Look(step, value, error, 0.5) for step, value in enumerate(improvements, start=1))
    steps = (Step(0.5, 2.0, 0.25, 10), Step(-0.5, 4.0, 0.75, 30))
    return Course(steps, looks, (Distance(1, 0.01), Distance(2, 0.02)), kept=kept)


@pytest.mark.parametrize(
    ("improvements", "past"),
    [
        ((), False),
        ((0.1,), False),
        ((0.2, 0.1), False),
        ((0.2, 0.1, 0.15), True),
        ((0.2, 0.1, 0.2), False),
        ((0.2, 0.1, 0.3), False),
        ((0.1, 0.3, 0.2, 0.25), True),
        ((-0.1, -0.2, -0.3), True),
        ((0.1, 0.2, 0.3), False),
    ],
)
def test_two_looks_below_the_best_are_enough(improvements: tuple[float, ...], past: bool) -> None:
    assert course(*improvements).past_its_best is past


def test_within_a_standard_error_of_the_best_nothing_is_past_it() -> None:
    """Two looks early in a training, at its highest rate, say little."""
    assert course(-0.01, -0.03, -0.02).past_its_best
    assert not course(-0.01, -0.03, -0.02, error=0.03).past_its_best
    assert course(0.1, 0.05, 0.06, error=0.03).past_its_best
    assert not course(0.1, 0.05, 0.08, error=0.03).past_its_best


def test_a_look_stands_down_to_a_standard_error_below_the_best() -> None:
    looked = course(0.1, 0.3, error=0.1)
    assert [looked.stands(Look(3, value, 9.0, 0.5)) for value in (0.4, 0.2, 0.19)] == [True, True, False]
    assert course().stands(Look(1, -1.0, 0.0, 0.5))


def test_the_first_of_equals_is_the_best() -> None:
    best = course(0.1, 0.3, 0.3).best
    assert best is not None
    assert best.step == 2


def test_metrics_are_over_all_steps() -> None:
    found = course(0.1, 0.3, 0.2).metrics()
    assert (found["steps"], found["tokens"], found["kl"], found["kl_max"]) == (2, 40, 0.01, 0.02)
    assert found["steps_kept"] == 1
    assert (found["gradient_norm"], found["clipped_fraction"], found["loss"]) == (3.0, 0.5, -0.5)
    assert (found["dev_improvement"], found["dev_improvement_best"], found["dev_best_step"]) == (0.1, 0.3, 2)
    assert course(0.1, 0.3, kept=2).metrics()["dev_improvement"] == 0.3
    assert not any(name.startswith("dev_") for name in course().metrics())
    with pytest.raises(ValueError, match="without a step"):
        Course().metrics()


def test_json_keeps_every_number() -> None:
    before = course(1 / 3, 0.1 + 0.2)
    assert course_from_json(json.loads(json.dumps(dataclasses.asdict(before)))) == before
    with pytest.raises(TypeError):
        course_from_json({"steps": [{"loss": 1}], "looks": []})


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"),
    [
        (8, 1, {2, 4, 6, 8}),
        (8, 2, {2, 4, 6, 8, 10, 12, 14, 16}),
        (1, 3, {1, 2, 3}),
        (3, 1, {1, 2, 3}),
        (10, 1, {3, 5, 8, 10}),
    ],
)
def test_looks_come_every_quarter_and_at_the_end(steps: int, epochs: int, expected: set[int]) -> None:
    assert look_steps(steps, epochs) == expected


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 16, 100])
def test_the_rate_rises_over_a_tenth_and_falls_to_nearly_nothing(steps: int) -> None:
    shares = [rate_share(number, steps) for number in range(1, steps + 1)]
    peak = shares.index(1.0)
    assert peak == steps // 10
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert 0 < shares[-1] <= max(1 / steps, 1 / (steps - peak))
    assert all(0 < share <= 1 for share in shares)
