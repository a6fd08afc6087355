"""What evidence amounts to: regressions in words, passing, what is missing, and the numbers."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.rollout import Evidence, ShadowPair, ShadowTally, StepCounts
from tao_daemon.domain.traffic import ArmCounts, SplitCounts
from tao_daemon.rollout.assessment import Limits, find_regression, numbers, shadow_passed, shadow_wants
from tao_daemon.rollout.eprocess import observe

LIMITS = Limits(alpha=0.05, margin=0.1, relative_risk=1.25, max_error_fraction=0.05, min_pairs=64)


def shadow(*differences: float, skipped: int = 0) -> Evidence:
    pairs = [ShadowPair(f"p{n}", difference) for n, difference in enumerate(differences)]
    return Evidence(observe(ShadowTally(), pairs, skipped, LIMITS.margin))


def step(fraction: float, incumbent: ArmCounts, candidate: ArmCounts, generation: int = 1) -> StepCounts:
    return StepCounts(generation, fraction, SplitCounts(incumbent, candidate))


def arm(conversations: int, errors: int = 0, slow: int = 0, truncated: int = 0) -> ArmCounts:
    return ArmCounts(2 * conversations, conversations, errors, slow, truncated)


def canary(*steps: StepCounts) -> Evidence:
    return Evidence(steps=steps)


def test_nothing_seen_is_no_regression_and_no_pass() -> None:
    assert find_regression(Evidence(), LIMITS) is None
    assert not shadow_passed(Evidence(), LIMITS)
    assert shadow_wants(Evidence(), LIMITS) == "0 of 64 pairs"


def test_a_worse_shadow_is_a_regression_with_its_numbers() -> None:
    assert find_regression(shadow(*[-0.31] * 20), LIMITS) is None
    found = find_regression(shadow(*[-0.31] * 40), LIMITS)
    assert found is not None
    assert found.startswith("shadow: 40 pairs, mean difference -0.31, e-value ")
    assert found.endswith(" reaches 40")


def test_a_shadow_no_worse_passes_with_enough_pairs() -> None:
    assert shadow_wants(shadow(*[0.0] * 17), LIMITS) == "17 of 64 pairs"
    assert shadow_wants(shadow(*[0.0] * 17, skipped=5), LIMITS) == "17 of 64 pairs, 5 skipped"
    assert not shadow_passed(shadow(*[0.3] * 63), LIMITS)
    assert shadow_passed(shadow(*[0.0] * 64), LIMITS)
    assert shadow_wants(shadow(*[0.0] * 64), LIMITS) == ""


def test_a_shadow_that_is_not_sure_yet_says_how_far_it_is() -> None:
    evidence = shadow(*[-1.0, 1.0] * 32)
    assert not shadow_passed(evidence, LIMITS)
    wants = shadow_wants(evidence, LIMITS)
    assert wants.startswith("64 pairs, not yet sure that it is not more than 0.10 worse: e-value ")
    assert wants.endswith(" of 20")


@pytest.mark.parametrize("kind", ["errors", "slow", "truncated"])
def test_a_tripled_risk_is_a_regression_and_a_shared_incident_is_not(kind: str) -> None:
    shared = step(0.25, arm(7500, **{kind: 300}), arm(2500, **{kind: 100}))
    tripled = step(0.25, arm(7500, **{kind: 75}), arm(2500, **{kind: 75}), generation=2)
    assert find_regression(canary(shared), LIMITS) is None
    found = find_regression(canary(shared, tripled), LIMITS)
    assert found is not None
    assert found.startswith(f"{kind}: 175 of 550 in the candidate's arm, 137.5 expected, e-value ")
    assert found.endswith(" reaches 160")


def test_an_error_rate_above_the_limit_is_a_regression_whatever_the_incumbent_does() -> None:
    assert find_regression(canary(step(1.0, arm(0), arm(100, errors=5))), LIMITS) is None
    found = find_regression(canary(step(1.0, arm(0), arm(100, errors=20))), LIMITS)
    assert found is not None
    assert found.startswith("errors: 20 of the candidate's 100 conversations, at most 5% may, e-value ")
    both = canary(step(0.5, arm(200, errors=60), arm(200, errors=60)))
    assert "at most 5% may" in (find_regression(both, LIMITS) or "")


def test_more_failures_than_conversations_are_as_bad_as_can_be() -> None:
    """A conversation that began with the incumbent may fail for the first time with the candidate."""
    found = find_regression(canary(step(0.25, arm(300), arm(3, errors=4))), LIMITS)
    assert found is not None
    assert found.startswith("errors: 3 of the candidate's 3 conversations")


def test_alpha_sets_every_threshold() -> None:
    found = numbers(Evidence(), replace(LIMITS, alpha=0.01))
    thresholds = {key.removeprefix("threshold_"): found[key] for key in found if key.startswith("threshold_")}
    canary_tests = dict.fromkeys(("errors", "slow", "truncated", "error_rate"), pytest.approx(800))
    assert thresholds == {"worse": pytest.approx(200), "not_inferior": pytest.approx(100), **canary_tests}
    assert sum(1 / v for name, v in thresholds.items() if name != "not_inferior") == pytest.approx(0.01)


def test_the_numbers_tell_counts_over_all_steps_and_of_the_present_one() -> None:
    steps = (step(0.05, arm(95, errors=1), arm(5)), step(0.25, arm(30, slow=2), arm(10, truncated=3), generation=2))
    evidence = replace(shadow(0.5, -0.25, skipped=4), steps=steps)
    found = numbers(evidence, LIMITS)
    expected = {
        "shadow_pairs": 2,
        "shadow_pairs_wanted": 64,
        "shadow_skipped": 4,
        "shadow_candidate_failures": 0,
        "shadow_mean_difference": 0.125,
        "incumbent_conversations": 125,
        "incumbent_requests": 250,
        "incumbent_errors": 1,
        "incumbent_slow": 2,
        "candidate_conversations": 15,
        "candidate_truncated": 3,
        "step_fraction": 0.25,
        "step_candidate_conversations": 10,
        "step_incumbent_conversations": 30,
    }
    assert {key: found[key] for key in expected} == expected
    assert {key for key in found if key.startswith("evidence_")} == {
        f"evidence_{name}" for name in ("worse", "not_inferior", "errors", "slow", "truncated", "error_rate")
    }


@given(
    st.lists(st.floats(-1, 1), max_size=60),
    st.lists(
        st.tuples(st.sampled_from([0.05, 0.5, 1.0]), *[st.integers(0, 10**6) for _ in range(4)]),
        max_size=3,
    ),
)
@settings(max_examples=50, deadline=None)
def test_a_regression_is_said_when_and_only_when_a_number_reaches_its_threshold(
    differences: list[float], rows: list[tuple[float, int, int, int, int]]
) -> None:
    steps = tuple(step(f, arm(a, errors=b, slow=c), arm(c, errors=d, truncated=a)) for f, a, b, c, d in rows)
    evidence = replace(shadow(*differences), steps=steps)
    found = numbers(evidence, LIMITS)
    assert all(math.isfinite(value) for value in json.loads(json.dumps(found)).values())
    tests = ("worse", "errors", "slow", "truncated", "error_rate")
    said = any(found[f"evidence_{name}"] >= found[f"threshold_{name}"] for name in tests)
    assert (find_regression(evidence, LIMITS) is not None) == said


def test_rollouts_of_the_incumbent_itself_are_seldom_aborted() -> None:
    """Everything at once and looked at after every batch: shadow pairs, then three canary steps with equal rates."""
    draw, aborted, runs = random.Random(5), 0, 100
    for _ in range(runs):
        evidence, found = Evidence(), None
        for _ in range(16):
            pairs = [ShadowPair("p", draw.choice([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])) for _ in range(8)]
            evidence = replace(evidence, shadow=observe(evidence.shadow, pairs, 0, LIMITS.margin))
            found = found or find_regression(evidence, LIMITS)
        for generation, fraction in enumerate((0.05, 0.25, 0.5)):
            counts = SplitCounts()
            for _ in range(8):
                ours = sum(draw.random() < fraction for _ in range(50))
                arms = (
                    arm(n, *(sum(draw.random() < 0.05 for _ in range(n)) for _ in range(3))) for n in (50 - ours, ours)
                )
                counts += SplitCounts(*arms)
                steps = (*evidence.steps[:generation], StepCounts(generation, fraction, counts))
                found = found or find_regression(replace(evidence, steps=steps), LIMITS)
            evidence = replace(evidence, steps=steps)
        aborted += found is not None
    assert aborted / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
