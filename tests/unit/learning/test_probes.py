"""Probes: short, from different prompts, and those that change most come first."""

from __future__ import annotations

import math

from tao_daemon.domain.adapter import FingerprintProbe
from tao_daemon.learning.advantage import LearningGroup, LearningSample, Weighting
from tao_daemon.learning.probes import MAX_CANDIDATES, MAX_COMPLETION_TOKENS, MAX_PROBES, candidates, most_telling


def sample(advantage: float, *tokens: int) -> LearningSample:
    return LearningSample(tokens, (-1.0,) * len(tokens), advantage, Weighting.IMPORTANCE)


def test_the_samples_that_teach_most_come_first_and_never_twice() -> None:
    samples = (sample(0.1, 3), sample(-0.5, *range(100)), sample(0.4, 5), sample(0.4, 5))
    found = candidates([LearningGroup((1, 2), samples), LearningGroup((1, 2, 3), (sample(0.2, 9), sample(0.1, 8)))])
    longest = tuple(range(MAX_COMPLETION_TOKENS))
    assert [c.completion for c in found] == [longest, (9,), (5,), (8,), (3,)]
    assert {c.prompt for c in found} == {(1, 2), (1, 2, 3)}


def test_short_prompts_are_preferred() -> None:
    groups = [LearningGroup(tuple(range(length)), (sample(0.5, 1),)) for length in range(100, 0, -1)]
    assert sorted(len(c.prompt) for c in candidates(groups)) == list(range(1, MAX_CANDIDATES + 1))


def test_the_largest_change_wins() -> None:
    probes = [FingerprintProbe((1, 2), 1, (-1.0,), (-1.0 - size,)) for size in range(12)]
    found = most_telling(probes)
    assert len(found) == MAX_PROBES
    assert found[0] is probes[11]


def test_what_is_not_a_number_is_never_left_out() -> None:
    probes = [FingerprintProbe((1, 2), 1, (-1.0,), (-1.0 - size,)) for size in range(12)]
    strange = FingerprintProbe((1, 2), 1, (math.nan,), (-1.0,))
    assert most_telling([*probes, strange])[0] is strange
