"""What a round leaves on disk: `rounds/<id>/` with Parquet tables (written by DuckDB) and `report.json`.

Sampling appends each group to a line file as it arrives (fsync), so an interruption loses at most one group;
every finished table is written under a temporary name and renamed, so a reader sees it whole or not at all. What a
round has not left yet reads as empty; what is there and cannot be read is an ArchiveError that names the file and no
content. Reading leaves no trace on disk. Blocking: callers use a thread.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb

from tao_daemon.clients.duckdb import SETTINGS, quoted
from tao_daemon.clients.storage import atomic_write_bytes, atomic_write_json, fsync_directory
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import ArchiveError
from tao_daemon.domain.report import SAME, AnswerOrder, AnswerPage

log = logging.getLogger(__name__)

_COMPLETIONS = """{'prompt_id': 'VARCHAR', 'prompt_token_ids': 'INTEGER[]',
 'completions': 'STRUCT("index" INTEGER, strategy VARCHAR, "text" VARCHAR, token_ids INTEGER[],
                        logprobs DOUBLE[], finish_reason VARCHAR, extracted BOOLEAN)[]', 'examples': 'VARCHAR[]'}"""
_SCORES = "{'prompt_id': 'VARCHAR', 'indices': 'INTEGER[]', 'rewards': 'DOUBLE[]', 'scorers': 'VARCHAR[]'}"
_EVALUATION = """{'prompt_id': 'VARCHAR', 'incumbent_text': 'VARCHAR', 'candidate_text': 'VARCHAR',
 'incumbent_score': 'DOUBLE', 'candidate_score': 'DOUBLE', 'incumbent_tokens': 'INTEGER', 'candidate_tokens': 'INTEGER',
 'incumbent_truncated': 'BOOLEAN', 'candidate_truncated': 'BOOLEAN'}"""
_ANSWER_COLUMNS = (
    "prompt_id",
    *(f"{side}_{what}" for side in ("incumbent", "candidate") for what in ("text", "score", "tokens", "truncated")),
)
_OUTLINE = """
SELECT prompt_id, [{'index': c."index", 'strategy': c.strategy, 'finish_reason': c.finish_reason} for c in completions]
FROM read_parquet(?)
"""
_BEST = """
WITH sampled AS (SELECT prompt_id, unnest(completions) AS c FROM read_parquet($1)),
     scored AS (SELECT prompt_id, unnest(indices) AS place, unnest(rewards) AS reward FROM read_parquet($2))
SELECT prompt_id, c."text", reward
FROM sampled JOIN scored USING (prompt_id)
WHERE c."index" = place AND c.finish_reason = 'stop' AND c."text" <> ''
QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY reward DESC, place) = 1
"""
_ORDERS = {
    AnswerOrder.REGRESSIONS: "NOT scored, CASE WHEN scored THEN difference END, file_row_number",
    AnswerOrder.GAINS: "NOT scored, CASE WHEN scored THEN -difference END, file_row_number",
    AnswerOrder.ARRIVAL: "file_row_number",
}
# NaN is above everything to DuckDB, so it is asked for; NULL is not finite either.
_ANSWERS = """
WITH compared AS (
    SELECT *, candidate_score - incumbent_score AS difference,
           coalesce(isfinite(candidate_score - incumbent_score), FALSE) AS scored
    FROM read_parquet(?, file_row_number = TRUE)
)
"""
_WRITING: Mapping[str, str] = {**SETTINGS, "threads": "1"}
_OBJECT_BYTES = 2**24
"""DuckDB reserves twice as much for each thread that reads JSON, whatever there is to read."""
_ROWS_AT_ONCE = 2048
"""DuckDB holds a row group of Parquet until it is whole; a row of completions may have 100 KB."""
_READING: Mapping[str, str] = {name: value for name, value in SETTINGS.items() if name != "memory_limit"}
"""A table is read whole, whatever it takes."""
_MOST_ROUNDS = 10**9
"""Numbers from here on are no round's: nobody runs that many, and file names have a limit."""


class RoundArchive:
    """The artefacts of all rounds below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def directory(self, round_id: int) -> Path:
        """Where the round's artefacts lie; made when it is missing."""
        path = self._place(round_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def training_directory(self, round_id: int, attempt: int) -> Path:
        return self.directory(round_id) / "training" / f"attempt-{attempt}"

    def append_group(self, round_id: int, group: CompletionGroup) -> None:
        """Keep one sampled group; durable when this returns."""
        line = json.dumps(asdict(group), ensure_ascii=False, separators=(",", ":")) + "\n"
        self.directory(round_id)
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
        try:
            return [_group(json.loads(line)) for line in whole.split(b"\n")[:-1]]
        except (ValueError, LookupError, TypeError) as error:
            raise _unreadable(path, error) from None

    def finish_sampling(self, round_id: int) -> None:
        """The line file becomes `completions.parquet`. Idempotent: a table that is there stays."""
        if not self.has_completions(round_id):
            rows = [asdict(group) for group in self.sampled_groups(round_id)]
            self._write_table(round_id, "completions", rows, _COMPLETIONS)
        self._partial(round_id).unlink(missing_ok=True)

    def completions(self, round_id: int) -> list[CompletionGroup]:
        return [_group(row) for row in self._read_table(round_id, "completions")]

    def has_completions(self, round_id: int) -> bool:
        return _is_file(self._table(round_id, "completions"))

    def has_scores(self, round_id: int) -> bool:
        return _is_file(self._table(round_id, "scores"))

    def has_evaluation(self, round_id: int) -> bool:
        return _is_file(self._table(round_id, "evaluation"))

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
        path = self._table(round_id, "scores")
        columns = ("prompt_id", "indices", "rewards", "scorers")
        return [_scored(path, groups, *(row[c] for c in columns)) for row in self._read_table(round_id, "scores")]

    def best_completions(self, *, before: int, rounds: int, limit: int) -> list[tuple[str, str, float]]:
        """(prompt, text, reward) of the best completion of each prompt, over the latest scored `rounds` before one.

        The best come first, at most `limit`; completions that were cut off and those without a text are none.
        """
        found: dict[str, tuple[str, str, float]] = {}
        scored = (n for n in sorted(self._numbers(), reverse=True) if n < before and self.has_scores(n))
        for number in itertools.islice(scored, rounds):
            try:
                rows = _fetch(self._table(number, "completions"), _BEST, str(self._table(number, "scores")))
            except ArchiveError as error:
                log.warning("a round's completions cannot be shown", extra={"round": number, "reason": str(error)})
                continue
            for prompt_id, text, reward in rows:
                found.setdefault(prompt_id, (prompt_id, text, reward))
        return sorted(found.values(), key=lambda row: (-row[2], row[0]))[:limit]

    def write_evaluation(self, round_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Both answers to each held-out prompt with their scores."""
        self._write_table(round_id, "evaluation", rows, _EVALUATION)

    def evaluation(self, round_id: int) -> list[dict[str, Any]]:
        return self._read_table(round_id, "evaluation")

    def update_report(self, round_id: int, part: Mapping[str, Any]) -> None:
        """Merge `part` into report.json, atomically; `phases` merges one level deeper."""
        report = self.report(round_id)
        phases = {**report.get("phases", {}), **part.get("phases", {})}
        path = self.directory(round_id) / "report.json"
        atomic_write_json(path, {"round": round_id, **report, **part, "phases": phases})

    def rewards(self, round_id: int) -> tuple[list[CompletionGroup], list[ScoredGroup]]:
        """What was sampled and what was kept with its rewards, without texts, tokens and log-probabilities.

        Both are empty before sampling ended and for a round that does not exist; the second before scoring ended, and
        where too few groups could teach.
        """
        path = self._table(round_id, "completions")
        if not _is_file(path):
            return [], []
        groups = {name: _outline(name, items) for name, items in _fetch(path, _OUTLINE)}
        scores = self._table(round_id, "scores")
        rows = (
            _fetch(scores, "SELECT prompt_id, indices, rewards, scorers FROM read_parquet(?)")
            if _is_file(scores)
            else []
        )
        scored = [_scored(scores, groups, *row) for row in rows]
        return list(groups.values()), scored

    def answers(self, round_id: int, *, order: AnswerOrder, limit: int, offset: int) -> AnswerPage:
        """`limit` of the gate's answers from `offset` on; empty before the gate and for a round without one.

        Pairs without a difference (a score is missing or not finite) come last, and are in no count but the total.
        """
        path = self._table(round_id, "evaluation")
        if not _is_file(path):
            return AnswerPage()
        counts = "count(*), count(*) FILTER (scored AND difference > ?), count(*) FILTER (scored AND difference < ?)"
        [(total, wins, losses, scored)] = _fetch(
            path, f"{_ANSWERS} SELECT {counts}, count(*) FILTER (scored) FROM compared", SAME, -SAME
        )
        rows = _fetch(
            path,
            f"{_ANSWERS} SELECT {', '.join(_ANSWER_COLUMNS)} FROM compared ORDER BY {_ORDERS[order]} LIMIT ? OFFSET ?",
            max(0, limit),
            max(0, offset),
        )
        page = [dict(zip(_ANSWER_COLUMNS, row, strict=True)) for row in rows]
        return AnswerPage(page, total, wins, scored - wins - losses, losses)

    def report(self, round_id: int) -> dict[str, Any]:
        """The report as far as it is written; {} for a round that has none (yet)."""
        path = self._report_path(round_id)
        if not _is_file(path):
            return {}
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable(path, error) from None
        if not isinstance(report, dict):
            raise _unreadable(path, ValueError("not an object"))
        return report

    def reports(self, *, limit: int | None = None, before: int | None = None) -> list[dict[str, Any]]:
        """The newest `limit` reports of rounds below `before`, oldest first; only those files are read.

        One that cannot be read is told as `{"round", "phases": {}, "problem"}`: it does not hide the others.
        """
        found: list[dict[str, Any]] = []
        for number in sorted(self._numbers(), reverse=True):
            if limit is not None and len(found) >= limit:
                break
            if before is None or number < before:
                found += self._told(number)
        return found[::-1]

    def _told(self, number: int) -> list[dict[str, Any]]:
        try:
            report = self.report(number)
        except ArchiveError as error:
            return [{"round": number, "phases": {}, "problem": str(error)}]
        return [report] if report else []

    def _numbers(self) -> list[int]:
        """Rounds that have a directory."""
        if not self._root.is_dir():
            return []
        return [int(path.name) for path in self._root.iterdir() if path.name.isascii() and path.name.isdigit()]

    def discard_training(self, round_id: int) -> None:
        """Training inputs and intermediate artefacts: everything in them lives on elsewhere."""
        shutil.rmtree(self.directory(round_id) / "training", ignore_errors=True)

    def _place(self, round_id: int) -> Path:
        return self._root / f"{min(max(round_id, 0), _MOST_ROUNDS):06d}"

    def _report_path(self, round_id: int) -> Path:
        return self._place(round_id) / "report.json"

    def _partial(self, round_id: int) -> Path:
        return self._place(round_id) / "completions.jsonl.part"

    def _table(self, round_id: int, name: str) -> Path:
        return self._place(round_id) / f"{name}.parquet"

    def _write_table(self, round_id: int, name: str, rows: Sequence[Mapping[str, Any]], columns: str) -> None:
        target = self.directory(round_id) / f"{name}.parquet"
        lines, temporary = target.with_suffix(".jsonl.tmp"), target.with_suffix(".parquet.tmp")
        longest = 0
        with lines.open("wb") as file:
            for row in rows:
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                longest = max(longest, len(line))
                file.write(line)
        with _told_by_kind(target, _unwritten), duckdb.connect(config=dict(_WRITING)) as db:
            size = max(_OBJECT_BYTES, 2 * longest)
            source = f"read_json(?, format='newline_delimited', columns={columns}, maximum_object_size={size})"
            how = f"FORMAT parquet, ROW_GROUP_SIZE {_ROWS_AT_ONCE}"
            db.execute(f"COPY (SELECT * FROM {source}) TO {quoted(temporary)} ({how})", [str(lines)])
        lines.unlink()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(target)
        fsync_directory(target.parent)

    def _read_table(self, round_id: int, name: str) -> list[dict[str, Any]]:
        path = self._table(round_id, name)
        with _told_by_kind(path), duckdb.connect(config=dict(_READING)) as db:
            cursor = db.execute("SELECT * FROM read_parquet(?)", [str(path)])
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _fetch(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a query whose first argument is the table's file."""
    with _told_by_kind(path), duckdb.connect(config=dict(SETTINGS)) as db:
        return db.execute(sql, [str(path), *values]).fetchall()


@contextmanager
def _told_by_kind(path: Path, problem: Callable[[Path, Exception], ArchiveError] | None = None) -> Iterator[None]:
    """What goes wrong with a table is told by its kind: DuckDB's own message may quote content."""
    try:
        yield
    except duckdb.Error as error:
        raise (problem or _unreadable)(path, error) from None


def _unreadable(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{path} cannot be read ({type(error).__name__}): it is missing or damaged; restore it from a backup"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from None


def _outline(name: str, items: Sequence[Mapping[str, Any]]) -> CompletionGroup:
    found = tuple(Completion(c["index"], c["strategy"], "", (), (), c["finish_reason"]) for c in items)
    return CompletionGroup(name, (), found)


def _scored(
    path: Path,
    groups: Mapping[str, CompletionGroup],
    prompt_id: str,
    indices: Sequence[int],
    rewards: Sequence[float],
    scorers: Sequence[str],
) -> ScoredGroup:
    """Rewards joined to the completions that they are of."""
    group = groups.get(prompt_id)
    found = _only(group, indices) if group else None
    if found is None or not len(found.completions) == len(indices) == len(rewards):
        raise ArchiveError(f"{path} does not fit the completions of prompt {prompt_id}; restore both from a backup")
    return ScoredGroup(found, tuple(rewards), tuple(scorers))


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
            extracted=bool(item.get("extracted")),  # rounds before there were such have no column
        )
        for item in row["completions"]
    )
    return CompletionGroup(
        row["prompt_id"], tuple(row["prompt_token_ids"]), completions, tuple(row.get("examples") or ())
    )


def _unwritten(path: Path, error: Exception) -> ArchiveError:
    wanted = "memory" if isinstance(error, duckdb.OutOfMemoryException) else "room on the disk"
    return ArchiveError(f"{path} cannot be written ({type(error).__name__}); is there {wanted}?")
