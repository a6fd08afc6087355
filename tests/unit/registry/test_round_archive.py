"""Round artefacts: what was written comes back, and a torn line costs one group at most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.registry.round_archive import RoundArchive


def a_group(name: str) -> CompletionGroup:
    awkward = 'line\nbreak, "quotes", ünïcode \u2028, and a null-ish \\u0000'
    completions = (
        Completion(0, "plain", awkward, (5, 6, 7), (-0.5, -1.25, -3.0), "stop"),
        Completion(1, "hint", "", (), (), "length"),
    )
    return CompletionGroup(name, (1, 2, 3), completions)


def test_groups_survive_the_line_file_and_parquet(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    groups = [a_group("a"), a_group("b")]
    for group in groups:
        archive.append_group(7, group)
    assert archive.sampled_groups(7) == groups
    archive.finish_sampling(7)
    assert archive.completions(7) == groups
    assert [path.name for path in archive.directory(7).iterdir()] == ["completions.parquet"]


def test_a_torn_line_is_cut_off_so_that_appending_stays_safe(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(1, a_group("a"))
    partial = archive.directory(1) / "completions.jsonl.part"
    partial.write_bytes(partial.read_bytes() + b'{"prompt_id": "torn", "prompt_tok')
    assert archive.sampled_groups(1) == [a_group("a")]
    archive.append_group(1, a_group("b"))
    assert [group.prompt_id for group in archive.sampled_groups(1)] == ["a", "b"]


def test_scores_are_joined_to_their_groups(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    for name in "ab":
        archive.append_group(1, a_group(name))
    archive.finish_sampling(1)
    scored = ScoredGroup(a_group("b"), (1.0, 0.25), ("ticket",))
    archive.write_scores(1, [scored])
    assert archive.scored_groups(1) == [scored]
    assert scored.spread == 0.75


def test_scores_remember_which_completions_count(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(1, a_group("a"))
    archive.finish_sampling(1)
    fewer = replace(a_group("a"), completions=a_group("a").completions[1:])
    scored = ScoredGroup(fewer, (0.5,), ("ticket",))
    archive.write_scores(1, [scored])
    assert archive.scored_groups(1) == [scored]


def test_a_gate_without_pairs_leaves_an_empty_table(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.write_evaluation(1, [])
    assert archive.evaluation(1) == []


def test_a_report_grows_phase_by_phase(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.update_report(3, {"phases": {"claiming": {"prompts": 4}}})
    archive.update_report(3, {"phases": {"sampling": {"groups": 4}}, "candidate": "x"})
    assert archive.report(3) == {
        "round": 3,
        "phases": {"claiming": {"prompts": 4}, "sampling": {"groups": 4}},
        "candidate": "x",
    }
    assert archive.reports() == [archive.report(3)]
