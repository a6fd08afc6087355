"""Probes: short, from different prompts, and those that change most come first."""

from __future__ import annotations

from tao_daemon.domain.adapter import FingerprintProbe
from tao_daemon.learning.advantage import LearningGroup, LearningSample, Weighting
from tao_daemon.learning.probes import MAX_CANDIDATES, MAX_COMPLETION_TOKENS, MAX_PROBES, candidates, most_telling


def sample(advantage: float, *tokens: int) -> LearningSample:
    return LearningSample(tokens, (-1.0,) * len(tokens), advantage, Weighting.IMPORTANCE)


def test_the_sample_that_teaches_most_stands_for_its_group() -> None:
    (found,) = candidates([LearningGroup((1, 2), (sample(0.1, 3), sample(-0.5, *range(100)), sample(0.4, 5)))])
    assert found.prompt == (1, 2)
    assert found.completion == tuple(range(MAX_COMPLETION_TOKENS))


def test_short_prompts_are_preferred() -> None:
    groups = [LearningGroup(tuple(range(length)), (sample(0.5, 1),)) for length in range(100, 0, -1)]
    assert sorted(len(c.prompt) for c in candidates(groups)) == list(range(1, MAX_CANDIDATES + 1))


def test_the_largest_change_wins() -> None:
    probes = [FingerprintProbe((1, 2), 1, (-1.0,), (-1.0 - size,)) for size in range(12)]
    found = most_telling(probes)
    assert len(found) == MAX_PROBES
    assert found[0] is probes[11]
