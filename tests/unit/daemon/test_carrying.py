"""Which refused rounds train again: those that the present incumbent sampled, and no training failed on since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tao_daemon.daemon.carrying import carried_groups, carried_prompts, rounds_to_carry
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.registry.round_archive import RoundArchive

SCORING = {"version": "1", "config_digest": "digest"}


def scored(prompt_id: str, reward: float = 1.0, *scorers: str) -> ScoredGroup:
    completions = tuple(Completion(n, "plain", "t", (5,), (-0.5,), "stop") for n in range(2))
    return ScoredGroup(CompletionGroup(prompt_id, (1, 2), completions), (reward, 0.0), scorers or ("ticket",))


def leave(archive: RoundArchive, number: int, *groups: ScoredGroup, phases: Any = None, **report: Any) -> None:
    """A round with these groups; without any it never came to scores."""
    for each in groups:
        archive.append_group(number, each.group)
    if groups:
        archive.finish_sampling(number)
        archive.write_scores(number, groups)
    found = phases if phases is not None else {"scoring": SCORING} if groups else {}
    archive.update_report(number, {"incumbent": "r1", "outcome": "rejected", **report, "phases": found})


@pytest.mark.parametrize(
    ("between", "carried"),
    [
        ({"outcome": "inconclusive"}, (3, 2)),
        ({"outcome": "cancelled"}, (2,)),
        ({"outcome": "failed", "phases": {"sampling": {}}}, (2,)),
        ({"outcome": "failed"}, ()),
        ({"outcome": "accepted"}, ()),
        ({"incumbent": None}, ()),
        ({"incumbent": "r0"}, ()),
        ({"phases": {"scoring": {**SCORING, "config_digest": "another"}}}, (2,)),
        ({"phases": {"scoring": {**SCORING, "version": "2"}}}, (2,)),
    ],
)
def test_what_lies_between_decides(tmp_path: Path, between: dict[str, Any], carried: tuple[int, ...]) -> None:
    archive = RoundArchive(tmp_path)
    leave(archive, 2, scored("a"))
    leave(archive, 3, scored("b"), **between)
    leave(archive, 4, scored("c"), outcome=None)
    leave(archive, 5, scored("d"))
    assert rounds_to_carry(archive, 4, most=2) == carried
    assert rounds_to_carry(archive, 4, most=1) == carried[:1]
    assert rounds_to_carry(archive, 4, most=0) == ()


def test_unreadable_reports_and_rounds_without_scores_are_passed_over(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    leave(archive, 1, scored("a"))
    leave(archive, 2)
    leave(archive, 3, scored("b"))
    (archive.directory(3) / "report.json").write_text("damaged")
    leave(archive, 4, scored("c"))
    assert rounds_to_carry(archive, 4, most=1) == (1,)


def test_a_prompt_trains_once_with_its_newest_group(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    leave(archive, 1, scored("a", 0.1), scored("b", 0.1))
    leave(archive, 2, scored("b", 0.2), scored("c", 0.2))
    leave(archive, 3, scored("c", 0.3), phases={"training": {"carried_from": [2, 1]}})
    found = carried_groups(archive, (2, 1), archive.scored_groups(3))
    assert found.rounds == (2, 1)
    assert [(each.group.prompt_id, each.rewards[0]) for each in found.groups] == [("b", 0.2), ("a", 0.1)]
    assert carried_prompts(archive, 3) == ("b", "a")
    assert carried_prompts(archive, 2) == ()
    (archive.directory(2) / "scores.parquet").write_bytes(b"damaged")
    assert carried_groups(archive, (2, 1), archive.scored_groups(3)).rounds == (1,)
    assert carried_groups(archive, (1,), archive.scored_groups(1)).rounds == (), "nothing is left of it"


def test_what_a_scorer_gave_that_scores_nothing_any_more_is_not_carried(tmp_path: Path) -> None:
    """As of a judge that is trusted no longer: its groups of this round were left out."""
    archive = RoundArchive(tmp_path)
    leave(archive, 1, scored("a", 0.1, "judge"), scored("b", 0.1, "judge", "ticket"), scored("c", 0.1, "ticket"))
    leave(archive, 2, scored("d"))
    found = carried_groups(archive, (1,), archive.scored_groups(2))
    assert [each.group.prompt_id for each in found.groups] == ["c"]
