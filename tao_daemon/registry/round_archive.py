"""What a round leaves on disk: `rounds/<id>/` with Parquet tables (written by DuckDB) and `report.json`.

Sampling appends each group to a line file as it arrives (fsync), so an interruption loses at most one group;
every finished table is written under a temporary name and renamed. Blocking: callers use a thread.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb

from tao_daemon.clients.storage import atomic_write_bytes, atomic_write_json, fsync_directory
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup

_COMPLETIONS = """{'prompt_id': 'VARCHAR', 'prompt_token_ids': 'INTEGER[]',
 'completions': 'STRUCT("index" INTEGER, strategy VARCHAR, "text" VARCHAR, token_ids INTEGER[],
                        logprobs DOUBLE[], finish_reason VARCHAR)[]'}"""
_SCORES = "{'prompt_id': 'VARCHAR', 'indices': 'INTEGER[]', 'rewards': 'DOUBLE[]', 'scorers': 'VARCHAR[]'}"
_EVALUATION = """{'prompt_id': 'VARCHAR', 'incumbent_text': 'VARCHAR', 'candidate_text': 'VARCHAR',
 'incumbent_score': 'DOUBLE', 'candidate_score': 'DOUBLE', 'incumbent_tokens': 'INTEGER', 'candidate_tokens': 'INTEGER',
 'incumbent_truncated': 'BOOLEAN', 'candidate_truncated': 'BOOLEAN'}"""


class RoundArchive:
    """The artefacts of all rounds below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def directory(self, round_id: int) -> Path:
        path = self._root / f"{round_id:06d}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def training_directory(self, round_id: int, attempt: int) -> Path:
        return self.directory(round_id) / "training" / f"attempt-{attempt}"

    def append_group(self, round_id: int, group: CompletionGroup) -> None:
        """Keep one sampled group; durable when this returns."""
        line = json.dumps(asdict(group), ensure_ascii=False, separators=(",", ":")) + "\n"
        with self._partial(round_id).open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def sampled_groups(self, round_id: int) -> list[CompletionGroup]:
        """Groups kept so far. A line torn by a crash is cut off, so that appending stays safe."""
        path = self._partial(round_id)
        if not path.exists():
            return []
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) != len(raw):
            atomic_write_bytes(path, whole)
        return [_group(json.loads(line)) for line in whole.splitlines()]

    def finish_sampling(self, round_id: int) -> None:
        """The line file becomes `completions.parquet`."""
        rows = [asdict(group) for group in self.sampled_groups(round_id)]
        self._write_table(round_id, "completions", rows, _COMPLETIONS)
        self._partial(round_id).unlink(missing_ok=True)

    def completions(self, round_id: int) -> list[CompletionGroup]:
        return [_group(row) for row in self._read_table(round_id, "completions")]

    def has_completions(self, round_id: int) -> bool:
        return self._table(round_id, "completions").exists()

    def write_scores(self, round_id: int, scored: Iterable[ScoredGroup]) -> None:
        rows = [
            {
                "prompt_id": s.group.prompt_id,
                "indices": [completion.index for completion in s.group.completions],
                "rewards": s.rewards,
                "scorers": s.scorers,
            }
            for s in scored
        ]
        self._write_table(round_id, "scores", rows, _SCORES)

    def scored_groups(self, round_id: int) -> list[ScoredGroup]:
        """The groups that could be scored, with the completions that count and their rewards."""
        groups = {group.prompt_id: group for group in self.completions(round_id)}
        return [
            ScoredGroup(_only(groups[row["prompt_id"]], row["indices"]), tuple(row["rewards"]), tuple(row["scorers"]))
            for row in self._read_table(round_id, "scores")
        ]

    def write_evaluation(self, round_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Both answers to each held-out prompt with their scores."""
        self._write_table(round_id, "evaluation", rows, _EVALUATION)

    def evaluation(self, round_id: int) -> list[dict[str, Any]]:
        return self._read_table(round_id, "evaluation")

    def update_report(self, round_id: int, part: Mapping[str, Any]) -> None:
        """Merge `part` into report.json, atomically; `phases` merges one level deeper."""
        report = self.report(round_id)
        phases = {**report.get("phases", {}), **part.get("phases", {})}
        atomic_write_json(self._report_path(round_id), {"round": round_id, **report, **part, "phases": phases})

    def report(self, round_id: int) -> dict[str, Any]:
        path = self._report_path(round_id)
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def reports(self) -> list[dict[str, Any]]:
        """Every round's report, oldest first."""
        return [json.loads(path.read_text()) for path in sorted(self._root.glob("*/report.json"))]

    def discard_training(self, round_id: int) -> None:
        """Training inputs and intermediate artefacts: everything in them lives on elsewhere."""
        shutil.rmtree(self.directory(round_id) / "training", ignore_errors=True)

    def _report_path(self, round_id: int) -> Path:
        return self.directory(round_id) / "report.json"

    def _partial(self, round_id: int) -> Path:
        return self.directory(round_id) / "completions.jsonl.part"

    def _table(self, round_id: int, name: str) -> Path:
        return self.directory(round_id) / f"{name}.parquet"

    def _write_table(self, round_id: int, name: str, rows: Sequence[Mapping[str, Any]], columns: str) -> None:
        target = self._table(round_id, name)
        lines, temporary = target.with_suffix(".jsonl.tmp"), target.with_suffix(".parquet.tmp")
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with duckdb.connect() as db:
            source = f"read_json(?, format='newline_delimited', columns={columns}, maximum_object_size=268435456)"
            db.execute(f"COPY (SELECT * FROM {source}) TO '{_quoted(temporary)}' (FORMAT parquet)", [str(lines)])
        lines.unlink()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(target)
        fsync_directory(target.parent)

    def _read_table(self, round_id: int, name: str) -> list[dict[str, Any]]:
        with duckdb.connect() as db:
            cursor = db.execute("SELECT * FROM read_parquet(?)", [str(self._table(round_id, name))])
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _only(group: CompletionGroup, indices: Sequence[int]) -> CompletionGroup:
    wanted = set(indices)
    return replace(group, completions=tuple(c for c in group.completions if c.index in wanted))


def _group(row: Mapping[str, Any]) -> CompletionGroup:
    completions = tuple(
        Completion(
            index=item["index"],
            strategy=item["strategy"],
            text=item["text"],
            token_ids=tuple(item["token_ids"]),
            logprobs=tuple(item["logprobs"]),
            finish_reason=item["finish_reason"],
        )
        for item in row["completions"]
    )
    return CompletionGroup(row["prompt_id"], tuple(row["prompt_token_ids"]), completions)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
