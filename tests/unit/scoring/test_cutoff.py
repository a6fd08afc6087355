"""Cut-off completions: a bad answer when the client set the limit, no evidence when we did."""

from __future__ import annotations

from typing import Any

import pytest

from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.scoring.cutoff import settle_cut_off


def scored(*finishes: str) -> ScoredGroup:
    completions = tuple(Completion(i, "plain", "x", (1,), (-1.0,), finish) for i, finish in enumerate(finishes))
    return ScoredGroup(CompletionGroup("p", (1,), completions), tuple(0.5 for _ in finishes), ("s",))


@pytest.mark.parametrize("request_", [{"max_tokens": 48}, {"max_completion_tokens": 20}])
def test_cut_off_by_the_client_is_a_bad_answer(request_: dict[str, Any]) -> None:
    assert settle_cut_off(scored("stop", "length"), request_, 48).rewards == (0.5, 0.0)


@pytest.mark.parametrize("request_", [{}, {"max_tokens": 49}, {"max_tokens": None}, {"max_tokens": True}])
def test_cut_off_by_us_is_no_evidence(request_: dict[str, Any]) -> None:
    settled = settle_cut_off(scored("stop", "length", "stop"), request_, 48)
    assert settled.rewards == (0.5, 0.5)
    assert [completion.index for completion in settled.group.completions] == [0, 2]


def test_a_group_without_any_whole_answer_is_empty() -> None:
    settled = settle_cut_off(scored("length", "length"), {}, 48)
    assert settled.rewards == ()
    assert settled.spread == 0.0
