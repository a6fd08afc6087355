"""Takes prompts out of what rounds and adapters keep of them: tables, line files, training inputs, fingerprints.

Invariants: nobody else uses the directories meanwhile; every step may be interrupted and repeated; a reader finds a
file whole, old or new. What is left of a round are its numbers. An adapter keeps its name: the probes that are taken
out of its fingerprint are noted in its manifest.

completions → digests of the probes that hold their tokens → fingerprints without those probes → tables without the rows
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from tao_daemon.clients.duckdb import SETTINGS, failure_name, quoted
from tao_daemon.clients.failpoints import reach
from tao_daemon.clients.storage import (
    UNFINISHED,
    atomic_write_bytes,
    atomic_write_json,
    fsync_directory,
    remove_unfinished,
)
from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.domain.errors import AdapterError, TaoError
from tao_daemon.registry.adapter_store import MANIFEST
from tao_daemon.registry.manifest import Manifest, manifest_from_json, manifest_to_json
from tao_daemon.registry.preflight import FINGERPRINT

_WITHOUT = "prompt_id NOT IN (SELECT unnest(?::VARCHAR[]))"


@dataclass(frozen=True, slots=True)
class ProbesLeft:
    """What an erasure leaves of an adapter's fingerprint."""

    taken: int
    left: int
    tokens: int
    """Completion tokens over the probes that are left."""
    sha256: str
    """Of the fingerprint's file as it is then."""


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone, no file verified. Raises AdapterError."""
    try:
        return manifest_from_json(json.loads((directory / MANIFEST).read_bytes()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AdapterError(f"{directory / MANIFEST}: {reason}; restore it from a backup or delete it") from None


def probes_of(adapter: Path, rounds: Iterable[Path], ids: Collection[str]) -> tuple[str, ...]:
    """Digests of the adapter's probes that hold tokens of these prompts; of all probes where that cannot be told.

    `ids` are prompts that it was trained on. A probe does not say which prompt it is of: the completions in `rounds`,
    the directories of those that it was trained on, do by the prompt's tokens.
    """
    probes = _fingerprint(adapter).probes
    found = [item for directory in rounds for item in _prompt_tokens(directory, ids).items()]
    known = {tokens for _, tokens in found}
    told = {name for name, _ in found} == set(ids)
    return tuple(probe_digest(each) for each in probes if not told or each.token_ids[: each.start] in known)


def probe_digest(probe: FingerprintProbe) -> str:
    return hashlib.sha256(json.dumps(probe.token_ids).encode()).hexdigest()


def without_probes(adapter: Path, digests: Collection[str]) -> ProbesLeft:
    """What `take_probes` would leave."""
    return _left(_fingerprint(adapter), digests)


def take_probes(adapter: Path, digests: Collection[str]) -> ProbesLeft:
    """Rewrite the fingerprint without these probes; the manifest says so first, so that it is valid at any moment."""
    before = _fingerprint(adapter)
    left = _left(before, digests)
    if left.taken:
        manifest = read_manifest(adapter)
        earlier = manifest.redacted.get(FINGERPRINT, ())
        noted = {**manifest.redacted, FINGERPRINT: tuple(dict.fromkeys((*earlier, left.sha256)))}
        atomic_write_json(adapter / MANIFEST, manifest_to_json(replace(manifest, redacted=noted)))
        atomic_write_bytes(adapter / FINGERPRINT, _without(before, digests).to_json().encode())
        for name in (MANIFEST, FINGERPRINT):
            (adapter / name).chmod(0o644)
    remove_unfinished(adapter)
    return left


def with_shown(directory: Path, ids: Collection[str]) -> tuple[str, ...]:
    """The prompts, and those of this round whose completions were sampled with one of them shown as an example: such a
    completion may repeat it."""
    wanted = list(ids)
    shown: set[str] = set()
    table = directory / "completions.parquet"
    if table.exists() and _query(table, "SELECT 1 FROM parquet_schema(?) WHERE name = 'examples'", [str(table)]):
        query = "SELECT prompt_id FROM read_parquet(?) WHERE list_has_any(examples, ?::VARCHAR[])"
        shown |= {name for (name,) in _query(table, query, [str(table), wanted])}
    for file in _line_files(directory):
        shown |= {_line_id(line) for line in _lines(file) if set(wanted).intersection(_examples(line))}
    return tuple(dict.fromkeys([*wanted, *sorted(shown)]))


def has_completions(directory: Path) -> bool:
    """Whether the round still says what was sampled, and with what shown."""
    return (directory / "completions.parquet").exists()


def rows_in_round(directory: Path, ids: Sequence[str]) -> int:
    """How many rows of a round's artefacts are of these prompts."""
    ids = with_shown(directory, ids)
    rows = sum(_count(table, ids) for table in _tables(directory))
    return rows + sum(_line_id(line) in set(ids) for file in _line_files(directory) for line in _lines(file))


def erase_from_round(directory: Path, ids: Sequence[str]) -> int:
    """Rewrite every artefact that has rows of these prompts; how many rows those were. Raises TaoError."""
    _remove_leftovers(directory)
    ids = with_shown(directory, ids)
    removed = 0
    # What an interrupted training was given is made again from the tables; it may hold groups of other rounds.
    for attempt in directory.glob("training/*"):
        shutil.rmtree(attempt)
    reach("erasure.trainings")
    # The completions come last of all: only they tell whose completions an erased prompt was shown to.
    for table in _tables(directory):
        if count := _count(table, ids):
            _rewrite_table(table, ids)
            removed += count
    for file in _line_files(directory):
        removed += _rewrite_lines(file, set(ids))
    fsync_directory(directory)
    return removed


def _fingerprint(adapter: Path) -> Fingerprint:
    try:
        return Fingerprint.from_json((adapter / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AdapterError(f"{adapter / FINGERPRINT}: {reason}; restore it from a backup or delete it") from None


def _without(fingerprint: Fingerprint, digests: Collection[str]) -> Fingerprint:
    return Fingerprint(tuple(each for each in fingerprint.probes if probe_digest(each) not in digests))


def _left(before: Fingerprint, digests: Collection[str]) -> ProbesLeft:
    after = _without(before, digests)
    return ProbesLeft(
        taken=len(before.probes) - len(after.probes),
        left=len(after.probes),
        tokens=sum(len(each.adapter_logprobs) for each in after.probes),
        sha256=hashlib.sha256(after.to_json().encode()).hexdigest(),
    )


def _prompt_tokens(directory: Path, ids: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The prompts' tokens as the model saw them, by identifier, as far as the round still has them."""
    path = directory / "completions.parquet"
    if not path.exists():
        return {}
    query = "SELECT prompt_id, prompt_token_ids FROM read_parquet(?) WHERE prompt_id IN (SELECT unnest(?::VARCHAR[]))"
    return {name: tuple(tokens) for name, tokens in _query(path, query, [str(path), list(ids)])}


def _tables(directory: Path) -> list[Path]:
    """Tables of prompts; the completions last, as other tables are read with them."""
    found = sorted(directory.glob("*.parquet"), key=lambda path: (path.stem == "completions", path.name))
    return [path for path in found if _has_prompts(path)]


def _has_prompts(path: Path) -> bool:
    return bool(_query(path, "SELECT 1 FROM parquet_schema(?) WHERE name = 'prompt_id'", [str(path)]))


def _count(table: Path, ids: Sequence[str]) -> int:
    query = f"SELECT count(*) FROM read_parquet(?) WHERE NOT ({_WITHOUT})"
    return int(_query(table, query, [str(table), list(ids)])[0][0])


def _rewrite_table(table: Path, ids: Sequence[str]) -> None:
    copy = table.with_name(f"{UNFINISHED}{table.name}-{secrets.token_hex(4)}")
    query = f"COPY (SELECT * FROM read_parquet(?) WHERE {_WITHOUT}) TO {quoted(copy)} (FORMAT parquet)"
    try:
        _query(table, query, [str(table), list(ids)])
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        copy.replace(table)
    finally:
        copy.unlink(missing_ok=True)


def _query(path: Path, query: str, values: Sequence[object]) -> list[Any]:
    """Raises TaoError; DuckDB's own message may quote a value."""
    spill = path.with_name(f"{UNFINISHED}spill-{secrets.token_hex(4)}")
    try:
        with duckdb.connect(config={**SETTINGS, "temp_directory": str(spill)}) as db:
            return db.execute(query, list(values)).fetchall()
    except duckdb.Error as error:
        raise TaoError(f"{path} cannot be read or rewritten ({failure_name(error)}); is it damaged?") from None
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def _line_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl.part"))


def _lines(file: Path) -> list[bytes]:
    """Whole lines; what a crash tore off is nobody's."""
    raw = file.read_bytes()
    return raw[: raw.rfind(b"\n") + 1].splitlines(keepends=True)


def _rewrite_lines(file: Path, ids: Collection[str]) -> int:
    lines = _lines(file)
    kept = [line for line in lines if _line_id(line) not in ids]
    content = b"".join(kept)
    if len(content) != file.stat().st_size:
        atomic_write_bytes(file, content)
    return len(lines) - len(kept)


def _line_id(line: bytes) -> str:
    value: Mapping[str, Any] = json.loads(line)
    return str(value["prompt_id"])


def _examples(line: bytes) -> list[str]:
    value: Mapping[str, Any] = json.loads(line)
    return [str(each) for each in value.get("examples") or ()]


def _whole(file: Path) -> Iterable[bytes]:
    return file.read_bytes().splitlines()


def _remove_leftovers(directory: Path) -> None:
    """What an interrupted writer left, with text in it; the phase that wrote it runs again."""
    remove_unfinished(directory)
    for path in directory.glob("*.tmp"):
        path.unlink()
