"""Round artefacts: what was written comes back, and a torn line costs one group at most."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import ArchiveError
from tao_daemon.domain.report import AnswerOrder, AnswerPage
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


def test_sampling_that_ended_can_be_ended_again(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(7, a_group("a"))
    left_over = archive.directory(7) / "completions.jsonl.part"
    lines = left_over.read_bytes()
    archive.finish_sampling(7)
    left_over.write_bytes(lines[:20])  # a crash between the table and the line file's end
    archive.finish_sampling(7)
    assert archive.completions(7) == [a_group("a")]
    assert not left_over.exists()


def test_a_table_that_cannot_be_written_is_an_error_of_the_archive(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(7, a_group("secret words"))
    (archive.directory(7) / "completions.parquet.tmp").mkdir()
    with pytest.raises(ArchiveError, match=r"completions.parquet cannot be written \(IOException\)"):
        archive.finish_sampling(7)


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


def test_only_the_wanted_reports_are_read_newest_first_told_oldest_first(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    for number in (999_999, 3, 12, 1_000_000):
        archive.update_report(number, {})
    (tmp_path / "000004").mkdir()  # still claiming: no report yet
    (tmp_path / "notes").mkdir()

    def numbers(**wanted: int) -> list[int]:
        return [report["round"] for report in archive.reports(**wanted)]

    assert numbers() == [3, 12, 999_999, 1_000_000]
    assert numbers(limit=2) == [999_999, 1_000_000]
    assert numbers(limit=2, before=999_999) == [3, 12]
    assert numbers(limit=0) == numbers(before=3) == []
    (tmp_path / "000003" / "report.json").write_text("{ torn")
    assert numbers(limit=1, before=1_000_000) == [999_999]


@pytest.mark.parametrize("content", [b'{"round": 1, "pha', b"[1]", b"\xff\xfe"])
def test_a_damaged_report_is_named_and_hides_no_other(tmp_path: Path, content: bytes) -> None:
    archive = RoundArchive(tmp_path)
    archive.update_report(1, {})
    archive.update_report(2, {})
    (tmp_path / "000001" / "report.json").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"000001/report.json cannot be read .* restore it from a backup"):
        archive.report(1)
    damaged, whole = archive.reports()
    assert (damaged["round"], damaged["phases"], whole["round"]) == (1, {}, 2)
    assert "000001/report.json" in damaged["problem"]


@pytest.mark.parametrize("number", [7, 0, -1, 2**60])
def test_a_round_that_does_not_exist_reads_as_empty_and_leaves_no_trace(tmp_path: Path, number: int) -> None:
    archive = RoundArchive(tmp_path / "rounds")
    assert archive.report(number) == {}
    assert archive.reports() == []
    assert archive.rewards(number) == ([], [])
    assert archive.answers(number, order=AnswerOrder.GAINS, limit=9, offset=0) == AnswerPage()
    assert not archive.has_completions(number)
    with pytest.raises(ArchiveError, match=r"completions\.parquet cannot be read"):
        archive.completions(number)
    assert not list(tmp_path.iterdir())


def test_rewards_come_without_contents(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(1, a_group("a"))
    assert archive.rewards(1) == ([], []), "sampling has not ended"
    archive.append_group(1, a_group("b"))
    archive.finish_sampling(1)
    groups, scored = archive.rewards(1)
    assert (len(groups), scored) == (2, [])
    archive.write_scores(
        1, [ScoredGroup(replace(a_group("b"), completions=a_group("b").completions[1:]), (0.5,), ("t",))]
    )
    groups, [kept] = archive.rewards(1)
    assert [[c.strategy for c in group.completions] for group in groups] == [["plain", "hint"]] * 2
    assert not any(c.text or c.token_ids or c.logprobs for group in groups for c in group.completions)
    assert (kept.group.prompt_id, [c.index for c in kept.group.completions], kept.rewards) == ("b", [1], (0.5,))


@pytest.mark.parametrize(
    "scored", [ScoredGroup(a_group("gone"), (1.0, 0.0), ("t",)), ScoredGroup(a_group("a"), (1.0,), ("t",))]
)
def test_scores_that_do_not_fit_the_completions_are_refused(tmp_path: Path, scored: ScoredGroup) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(1, a_group("a"))
    archive.finish_sampling(1)
    archive.write_scores(1, [scored])
    with pytest.raises(ArchiveError, match="does not fit the completions of prompt"):
        archive.rewards(1)
    with pytest.raises(ArchiveError, match="does not fit the completions of prompt"):
        archive.scored_groups(1)


def an_answer(name: str, before: float | None, after: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt_id": name, "incumbent_score": before, "candidate_score": after}
    for side in ("incumbent", "candidate"):
        row |= {f"{side}_text": f"{side} to {name}", f"{side}_tokens": 3, f"{side}_truncated": side == "candidate"}
    return row


ANSWERS = [
    an_answer("same", 0.5, 0.5 + 1e-10),
    an_answer("lost", 1.0, 0.25),
    an_answer("unscored", 0.5, None),
    an_answer("won", 0.0, 1.0),
    an_answer("not a number", float("nan"), 0.5),
    an_answer("won too", 0.0, 1.0),
]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (AnswerOrder.ARRIVAL, ["same", "lost", "unscored", "won", "not a number", "won too"]),
        (AnswerOrder.REGRESSIONS, ["lost", "same", "won", "won too", "unscored", "not a number"]),
        (AnswerOrder.GAINS, ["won", "won too", "same", "lost", "unscored", "not a number"]),
    ],
)
def test_answers_are_counted_over_all_and_come_a_page_at_a_time(
    tmp_path: Path, order: AnswerOrder, names: list[str]
) -> None:
    archive = RoundArchive(tmp_path)
    archive.write_evaluation(1, ANSWERS)
    pages = [archive.answers(1, order=order, limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [row["prompt_id"] for page in pages for row in page.rows] == names
    assert {(page.total, page.wins, page.ties, page.losses) for page in pages} == {(6, 2, 1, 1)}
    lost = next(row for page in pages for row in page.rows if row["prompt_id"] == "lost")
    assert dict(lost) == ANSWERS[1]


@pytest.mark.parametrize("table", ["completions", "scores", "evaluation"])
def test_a_damaged_table_is_named_without_its_content(tmp_path: Path, table: str) -> None:
    archive = RoundArchive(tmp_path)
    archive.append_group(1, a_group("needle"))
    archive.finish_sampling(1)
    archive.write_scores(1, [ScoredGroup(a_group("needle"), (1.0, 0.0), ("t",))])
    archive.write_evaluation(1, ANSWERS)
    path = archive.directory(1) / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-20] + b"needle")
    look = partial(archive.answers, 1, order=AnswerOrder.GAINS, limit=1, offset=0)
    with pytest.raises(ArchiveError, match=rf"{table}\.parquet cannot be read") as raised:
        (look if table == "evaluation" else partial(archive.rewards, 1))()
    assert "needle" not in str(raised.value)


def test_an_answer_page_does_not_print_answers(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    archive.write_evaluation(1, ANSWERS)
    assert "incumbent to" not in repr(archive.answers(1, order=AnswerOrder.ARRIVAL, limit=9, offset=0))


def test_a_damaged_line_is_named_without_its_content(tmp_path: Path) -> None:
    archive = RoundArchive(tmp_path)
    for name in ("secret words", "b", "c"):
        archive.append_group(3, a_group(name))
    lines = archive.directory(3) / "completions.jsonl.part"
    whole = lines.read_bytes()
    for damaged in (whole[:100] + bytes(10) + whole[110:], b"[]\n" + whole, b'{"prompt_id": 1}\n'):
        lines.write_bytes(damaged)
        with pytest.raises(ArchiveError, match=r"completions.jsonl.part cannot be read") as caught:
            archive.sampled_groups(3)
        assert "secret" not in str(caught.value)


def test_a_long_group_among_many_comes_back_in_its_place(tmp_path: Path) -> None:
    """More rows than are written at once, and one that is longer than a line usually may be."""
    archive = RoundArchive(tmp_path)
    groups = [CompletionGroup(f"p{number}", (1,), ()) for number in range(5000)]
    groups[3000] = CompletionGroup("long", (1,), (Completion(0, "plain", "x" * 20_000_000, (5,), (-0.5,), "stop"),))
    lines = [json.dumps(asdict(group)) + "\n" for group in groups]
    (archive.directory(1) / "completions.jsonl.part").write_text("".join(lines))
    archive.finish_sampling(1)
    assert archive.completions(1) == groups
