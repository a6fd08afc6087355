"""Replaying a round: what it left gives what was recorded, and a number that was touched is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tao_daemon.app.paths import journal_path
from tao_daemon.app.replay.rounds import replay_round
from tao_daemon.config import Config, parse_config
from tao_daemon.control.explanation import explain
from tao_daemon.control.insight import answers, reward_distribution
from tao_daemon.domain.errors import ArchiveError
from tao_daemon.domain.report import AnswerOrder


def checks_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in found["checks"]}


def differing(found: dict[str, Any]) -> set[str]:
    return {check["name"] for check in found["checks"] if check["same"] is False}


def unchecked(found: dict[str, Any]) -> set[str]:
    return {check["name"] for check in found["checks"] if check["same"] is None}


def replayed(config: Config, number: int = 1) -> dict[str, Any]:
    """As a command prints it: plain JSON."""
    found: dict[str, Any] = json.loads(json.dumps(replay_round(config, number), allow_nan=False))
    return found


def files_of(root: Path) -> dict[str, bytes]:
    """What is on disk, SQLite's own bookkeeping aside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


@pytest.mark.parametrize(("skill", "outcome"), [(0.9, "accepted"), (0.0, "rejected"), (0.25, "inconclusive")])
def test_an_untouched_round_replays_to_what_was_recorded(past: Any, skill: float, outcome: str) -> None:
    past.run_round(skill)
    before = files_of(past.config.daemon.data_dir)
    found = replayed(past.config)
    assert past.archive.report(1)["outcome"] == outcome
    assert (found["round"], found["matches"], unchecked(found)) == (1, True, set()), found["note"]
    checks = checks_of(found)
    assert {
        "scoring.mean_reward",
        "scoring.rewards",
        "training.samples",
        "evaluation.scores",
        "gate.decision",
        "gate.difference_low",
        "gate.reasons",
        "journal.chain",
        "journal.replay",
        "journal.decision",
        "journal.outcome",
    } <= checks.keys()
    assert checks["journal.outcome"]["recorded"] == outcome
    assert checks["scoring.dropped"]["recorded"] > 0, "the round has a group that teaches nothing"
    assert found["note"] == f"all {len(checks)} checks give what was recorded"
    assert files_of(past.config.daemon.data_dir) == before, "a replay changes nothing"


def test_the_second_round_replays_as_well(past: Any) -> None:
    past.run_round(0.0)
    past.run_round(0.9)
    assert replayed(past.config, 1)["matches"]
    second = replayed(past.config, 2)
    assert (second["matches"], unchecked(second)) == (True, set())
    assert past.archive.report(2)["phases"]["training"]["carried_groups"] > 0
    (past.archive.directory(1) / "scores.parquet").unlink()
    assert "training.groups" in unchecked(replayed(past.config, 2)), "what was carried is gone"


def test_a_round_that_failed_early_replays_what_there_is(past: Any) -> None:
    past.config = past.configured(round={"prompts": 500}, training={"min_groups": 500})
    past.run_round(0.9)
    found = replayed(past.config)
    assert past.archive.report(1)["outcome"] == "failed"
    assert found["matches"]
    assert set(checks_of(found)) == {
        "journal.chain", "journal.replay", "journal.outcome", "journal.reason", "journal.candidate"
    }  # fmt: skip


def test_a_score_of_the_gate_that_was_touched_is_named(past: Any) -> None:
    past.run_round(0.9)
    rows = past.archive.evaluation(1)
    lost = next(row for row in rows if row["candidate_score"] < row["incumbent_score"] or row["candidate_score"] < 1.0)
    lost["candidate_score"] = 1.0
    past.archive.write_evaluation(1, rows)
    found = replayed(past.config)
    assert not found["matches"]
    assert {"evaluation.scores", "gate.difference", "gate.candidate_score"} <= differing(found)
    assert "scoring.rewards" not in differing(found)
    assert lost["prompt_id"] in checks_of(found)["evaluation.scores"]["replayed"]
    assert "gate.difference" in found["note"]


def test_a_reward_that_was_touched_is_named(past: Any) -> None:
    past.run_round(0.9)
    scored = past.archive.scored_groups(1)
    first = scored[0].rewards
    object.__setattr__(scored[0], "rewards", (0.123, *first[1:]))
    past.archive.write_scores(1, scored)
    found = replayed(past.config)
    assert {"scoring.rewards", "scoring.mean_reward"} <= differing(found)
    assert f"completion 0: 0.123 → {first[0]}" in checks_of(found)["scoring.rewards"]["replayed"]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("verdict", "numbers", "difference_low"), 0.5, {"gate.difference_low"}),
        (("verdict", "decision"), "fail", {"gate.decision"}),
        (("verdict", "reasons"), ["trust me"], {"gate.reasons"}),
        (("verdict", "settings", "seed"), 99, {"gate.difference_low"}),
        (("phases", "scoring", "mean_reward"), 0.99, {"scoring.mean_reward"}),
        (("phases", "training", "samples"), 1.0, {"training.samples"}),
        (("outcome",), "rejected", {"journal.outcome"}),
        (("outcome_reason",), "because", {"journal.reason"}),
        (("candidate",), "another", {"journal.candidate"}),
    ],
)
def test_a_value_of_the_report_that_was_touched_is_named(
    accepted: Any, path: tuple[str, ...], value: Any, named: set[str]
) -> None:
    def touch(report: dict[str, Any]) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = value

    with accepted.touched_report(1, touch):
        found = replayed(accepted.config)
    assert named <= differing(found)
    if "seed" not in path:
        assert differing(found) == named


def test_a_journal_that_was_touched_is_named(past: Any) -> None:
    past.run_round(0.0)
    with sqlite3.connect(journal_path(past.config)) as db:
        db.execute(
            "UPDATE journal SET event = replace(event, '\"fail\"', '\"pass\"') WHERE event LIKE '%CandidateJudged%'"
        )
    found = replayed(past.config)
    assert differing(found) == {"journal.chain"}
    assert "was changed after it was written" in checks_of(found)["journal.chain"]["replayed"]


def test_a_journal_that_was_rewritten_to_the_end_is_not_what_the_machine_does(past: Any) -> None:
    """Its hashes fit, its decision does not."""
    from tao_daemon.registry.chain import GENESIS, digest

    past.run_round(0.0)
    with sqlite3.connect(journal_path(past.config)) as db:
        prev = GENESIS
        columns = "seq, at, event, state_after, commands, actor, note"
        for row in db.execute(f"SELECT {columns} FROM journal ORDER BY seq").fetchall():
            content = list(row)
            content[2] = content[2].replace('"decision":"fail"', '"decision":"pass"')
            fresh = digest((*content, prev))
            db.execute("UPDATE journal SET event=?, prev_hash=?, hash=? WHERE seq=?", (content[2], prev, fresh, row[0]))
            prev = fresh
    found = replayed(past.config)
    assert differing(found) == {"journal.replay", "journal.decision"}
    assert "(CandidateJudged) differs in" in checks_of(found)["journal.replay"]["replayed"]


def test_under_another_config_scores_may_differ_and_that_is_said(accepted: Any) -> None:
    strict = [{**scorer, "pattern": "nothing"} for scorer in accepted.settings["scorers"]]
    found = replayed(parse_config({**accepted.settings, "scorers": strict}))
    assert {"scoring.rewards", "evaluation.scores"} <= differing(found)
    assert not differing(found) & {"gate.decision", "gate.difference", "journal.decision", "scoring.mean_reward"}
    assert {"training.samples", "training.groups"} <= unchecked(found)
    assert "under another configuration: scores may differ" in found["note"]


def test_while_the_daemon_runs_scores_are_not_checked(accepted: Any) -> None:
    path = accepted.config.daemon.data_dir / "tao.duckdb"
    code = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        found = replayed(accepted.config)
        assert holder.stdin is not None
        holder.stdin.close()
    assert found["matches"]
    assert unchecked(found) == {"scoring.rewards", "evaluation.scores"}
    assert checks_of(found)["scoring.rewards"]["replayed"] == "not checked: buffer in use by the daemon"
    assert "2 of" in found["note"]


def test_what_was_erased_is_not_checked_and_that_is_said(past: Any) -> None:
    past.run_round(0.9)
    rows = past.archive.evaluation(1)
    past.archive.write_evaluation(1, rows[:-3])
    groups = {group.prompt_id for group in past.archive.completions(1)}
    with duckdb.connect(str(past.config.daemon.data_dir / "tao.duckdb")) as db:
        db.execute("DELETE FROM prompts WHERE id = ?", [sorted(groups)[0]])
    found = replayed(past.config)
    checks = checks_of(found)
    assert differing(found) == set()
    assert {"gate.decision", "scoring.rewards"} == unchecked(found)
    assert f"{len(rows) - 3} of {len(rows)} pairs are left" in checks["gate.decision"]["replayed"]
    assert "1 prompts are no longer in the buffer" in checks["scoring.rewards"]["replayed"]
    assert checks["journal.decision"]["same"]


def test_a_copy_of_the_rounds_alone_replays_but_for_the_journal(accepted: Any, tmp_path: Path) -> None:
    copy = accepted.configured(daemon={"data_dir": str(tmp_path / "copy")})
    shutil.copytree(accepted.config.daemon.data_dir / "rounds", copy.daemon.data_dir / "rounds")
    found = replayed(copy)
    assert found["matches"]
    assert {"journal.chain", "scoring.rewards", "evaluation.scores"} <= unchecked(found)
    assert "there is no journal at" in checks_of(found)["journal.chain"]["replayed"]
    assert "there is no buffer at" in checks_of(found)["scoring.rewards"]["replayed"]
    assert checks_of(found)["gate.decision"]["same"]


def test_the_versions_that_a_round_ran_under_are_noted_when_others_replay_it(accepted: Any) -> None:
    def touch(report: dict[str, Any]) -> None:
        report["phases"]["scoring"]["version"] = "0.0.1"
        report["phases"]["evaluating"]["numpy"] = "1.0"

    with accepted.touched_report(1, touch):
        note = replayed(accepted.config)["note"]
    assert "the round ran under version 0.0.1" in note
    assert "drawn by numpy 1.0" in note


def test_a_report_of_a_version_that_recorded_less_still_replays(accepted: Any) -> None:
    def touch(report: dict[str, Any]) -> None:
        del report["verdict"]["settings"], report["verdict"]["criteria"], report["ended_at"]
        for figures in report["phases"].values():
            for name in ("seed", "version", "config_digest", "min_spread", "sampling_limit", "numpy"):
                figures.pop(name, None)

    with accepted.touched_report(1, touch):
        found = replayed(accepted.config)
    assert found["matches"]
    assert checks_of(found)["gate.difference_low"]["same"]
    assert "under another configuration" in found["note"]


def test_a_round_that_does_not_exist_is_said_so(past: Any) -> None:
    with pytest.raises(ArchiveError, match="round 3 has no report"):
        replay_round(past.config, 3)


def test_damaged_artefacts_are_named(past: Any) -> None:
    past.run_round(0.9)
    (past.archive.directory(1) / "evaluation.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArchiveError, match=r"evaluation\.parquet cannot be read"):
        replay_round(past.config, 1)


def test_nothing_of_a_prompt_or_an_answer_is_in_a_replay(past: Any) -> None:
    past.run_round(0.9)
    rows = past.archive.evaluation(1)
    for row in rows:
        row["candidate_text"] = "needle"
    past.archive.write_evaluation(1, rows)
    found = replayed(past.config)
    assert "evaluation.scores" in differing(found)
    assert "needle" not in json.dumps(found)
    assert "billing" not in json.dumps(found)


def test_what_the_round_left_can_be_shown(accepted: Any) -> None:
    report = accepted.archive.report(1)
    assert [each["passed"] for each in explain(report)] == [True] * 8
    numbers = report["verdict"]["numbers"]
    page = accepted.archive.answers(1, order=AnswerOrder.GAINS, limit=5, offset=0)
    shown = answers(page, {})
    assert shown["total"] == numbers["pairs"]
    assert shown["wins"] + shown["losses"] == numbers["differing_pairs"]
    distribution = reward_distribution(*accepted.archive.rewards(1))
    scoring = report["phases"]["scoring"]
    assert (distribution["kept"], distribution["dropped"]) == (scoring["kept"], scoring["dropped"])
    assert distribution["strategies"][0]["mean"] == pytest.approx(scoring["mean_reward_plain"])
    assert report["ended_at"] > report["started_at"]
