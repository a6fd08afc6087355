"""Erasure is physical and knows lineage (PROMISES 23), also when it is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.app.backends import open_store
from tao_daemon.app.operations import erasing
from tao_daemon.app.operations.erasing import ErasureRequest, finish_erasure, forget, preview
from tao_daemon.app.operations.prompts import buffer_stats
from tao_daemon.app.paths import journal_path
from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.erasing import SelectBy, Selector
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.domain.adapter import Lineage
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import InstanceError, PromptStoreError
from tao_daemon.domain.ports import Ingest
from tao_daemon.registry.erasure import probes_of
from tao_daemon.registry.journal import Journal

NEEDLE = "kümmel-zwieback-4711"
ADA = "ada@example.org"
REQUEST = ErasureRequest(Selector(SelectBy.SUBJECT, ADA), "dpo", "erasure request 12")
PLACES = ("planned", "fingerprints", "trainings", "round", "deleted", "compacted", "journaled")


def occurrences(directory: Path, needle: str) -> list[str]:
    """Files with the text in any of the encodings that our files use."""
    variants = [needle.encode(coding) for coding in ("utf-8", "utf-16-le", "utf-16-be")]
    variants += [json.dumps(needle).strip('"').encode()]
    files = [path for path in directory.rglob("*") if path.is_file()]
    found = [path for path in files if any(each in path.read_bytes() for each in variants)]
    return sorted(path.relative_to(directory).as_posix() for path in found)


def quietly(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total
    assert NEEDLE not in what


def noted(world: Any) -> list[dict[str, Any]]:
    with closing(Journal(journal_path(world.config))) as journal:
        journal.verify()
        return [dict(each.event) for each in journal.entries() if each.event["type"] == "PromptsForgotten"]


def check_erased(world: Any) -> None:
    """Nothing of Ada's is in any file, everything of Bob's is as it was, and all of it can still be used."""
    assert occurrences(world.data_dir, NEEDLE) == []
    assert not list(world.data_dir.rglob(".tmp-*"))
    assert not list(world.data_dir.rglob("*.tmp"))
    assert not (world.data_dir / "erasure.json").exists()
    gone = {each.id for each in world.of(ADA)}
    kept = [each for each in world.claimed if each.id not in gone]
    archive = world.archive
    assert [group.prompt_id for group in archive.completions(1)] == [each.id for each in kept]
    assert [scored.group.prompt_id for scored in archive.scored_groups(1)] == [each.id for each in kept]
    answers = {row["prompt_id"] for row in archive.evaluation(1)}
    assert answers
    assert not answers & gone
    sampled = [group.prompt_id for group in archive.sampled_groups(2)]
    assert len(sampled) == 3
    assert not gone & set(sampled)
    assert not archive.training_directory(2, 1).exists()
    assert archive.report(1)["phases"] == {"sampling": {"groups": 8}}
    record = world.adapters.get(world.first)  # every digest is verified
    assert [probe.token_ids[0] - 90_000 for probe in record.fingerprint.probes] == [each.source.offset for each in kept]
    assert len(world.adapters.get(world.second).fingerprint.probes) == 3
    with closing(open_database(world.data_dir / "tao.duckdb")) as connection:
        rows = connection.execute("SELECT id FROM prompts").fetchall()
        assert {row[0] for row in rows} == {each.id for each in world.prompts} - gone


def test_nothing_of_a_subject_is_left_in_any_file(make_world: Callable[..., Any]) -> None:
    world = make_world()
    before = occurrences(world.data_dir, NEEDLE)
    assert before == [
        "rounds/000001/completions.parquet",
        "rounds/000001/evaluation.parquet",
        "rounds/000002/completions.jsonl.part",
        "rounds/000002/evaluation.jsonl.tmp",
        "tao.duckdb",
    ], "the search sees what is there"
    mine = [each for each in world.claimed if each.subject == ADA]
    assert 0 < len(mine) < len(world.claimed)
    told = forget(world.config, REQUEST, lambda: 500.0, quietly)
    check_erased(world)
    assert told["prompts"] == 10
    assert told["rounds"] == [1]
    first, second = told["adapters"]
    assert first == {
        "name": world.first,
        "trained_on": len(mine),
        "serves": "everything",
        "probes_taken": len(mine),
        "probes_left": len(world.claimed) - len(mine),
        "verifiable": True,
    }
    assert (second["name"], second["trained_on"], second["serves"]) == (world.second, 0, "nothing")
    [event] = noted(world)
    assert (event["count"], event["selected_by"], event["actor"]) == (10, "subject", "dpo")
    assert event["rounds"] == [1]
    assert event["adapters"] == [world.first, world.second]
    assert ADA not in json.dumps(event)


def test_what_was_sampled_with_an_erased_prompt_shown_goes_too(make_world: Callable[..., Any]) -> None:
    world = make_world()
    ada = next(each for each in world.claimed if each.subject == ADA)
    others = [each for each in world.prompts if each.subject != ADA and each not in world.claimed][:3]
    for place, prompt in enumerate(others):
        repeats = f"as in {ada.user_text}" if place == 0 else "something else"
        completion = Completion(0, "shown", repeats, (7,), (-0.5,), "stop")
        group = CompletionGroup(prompt.id, (1, place), (completion,), (ada.id,) if place == 0 else ())
        world.archive.append_group(3, group)
    world.archive.finish_sampling(3)
    scored = [ScoredGroup(group, (0.5,), ("json",)) for group in world.archive.completions(3)]
    world.archive.write_scores(3, scored)
    assert world.archive.completions(3)[0].examples == (ada.id,)
    attempt = world.archive.training_directory(3, 1)
    attempt.mkdir(parents=True)
    (attempt / "batch.jsonl").write_text(json.dumps({"prompt_id": others[0].id, "text": NEEDLE}) + "\n")
    forget(world.config, REQUEST, lambda: 500.0, quietly)
    assert occurrences(world.data_dir, NEEDLE) == []
    left = [others[1].id, others[2].id]
    assert [group.prompt_id for group in world.archive.completions(3)] == left
    assert [each.group.prompt_id for each in world.archive.scored_groups(3)] == left


def test_the_inputs_of_a_training_that_carries_groups_of_another_round_go_too(make_world: Callable[..., Any]) -> None:
    """The round that carries does not know what the completions were sampled with."""
    world = make_world()
    ada = next(each for each in world.claimed if each.subject == ADA)
    other = next(each for each in world.prompts if each.subject != ADA and each not in world.claimed)
    completion = Completion(0, "shown", f"as in {ada.user_text}", (7,), (-0.5,), "stop")
    world.archive.append_group(3, CompletionGroup(other.id, (1,), (completion,), (ada.id,)))
    world.archive.finish_sampling(3)
    attempt = world.archive.training_directory(4, 1)
    attempt.mkdir(parents=True)
    (attempt / "batch.jsonl").write_text(json.dumps({"prompt_id": other.id, "text": NEEDLE}) + "\n")
    forget(world.config, REQUEST, lambda: 500.0, quietly)
    assert occurrences(world.data_dir, NEEDLE) == []


def test_an_adapter_learned_from_what_was_sampled_with_an_erased_prompt_shown(make_world: Callable[..., Any]) -> None:
    """Also where the prompt that was shown trained in the same round itself."""
    world = make_world()
    shown, other, third = world.claimed[:3]
    completion = Completion(0, "plain", "t", (7,), (-0.5,), "stop")
    for prompt, examples in ((shown, ()), (other, (shown.id,)), (third, ())):
        world.archive.append_group(4, CompletionGroup(prompt.id, (1, 2), (completion,), examples))
    world.archive.finish_sampling(4)
    ids = tuple(each.id for each in (shown, other, third))
    lineage = Lineage(4, None, "/base", "d" * 64, ids, (), "c" * 64, example_ids=(shown.id,))
    assert erasing._learned_from(world.config, lineage, [shown.id]) == {shown.id, other.id}
    assert erasing._learned_from(world.config, lineage, [third.id]) == {third.id}
    gone = Lineage(5, None, "/base", "d" * 64, ids, (), "c" * 64, example_ids=(shown.id,))
    assert erasing._learned_from(world.config, gone, [shown.id]) == set(ids), "nobody can tell any more"
    carried = replace(gone, carried_from=(4,))
    assert erasing._learned_from(world.config, carried, [shown.id]) == set(ids), "of one of its rounds"
    world.archive.append_group(5, CompletionGroup(third.id, (1, 2), (completion,), ()))
    world.archive.finish_sampling(5)
    assert erasing._learned_from(world.config, carried, [shown.id]) == {shown.id, other.id}
    assert erasing._trained_on(world.config, carried) == [world.archive.directory(5), world.archive.directory(4)]


def test_the_probes_of_a_carried_prompt_are_found_in_the_round_that_sampled_it(make_world: Callable[..., Any]) -> None:
    """Without that round nobody could tell whose they are, and all would be taken."""
    world = make_world()
    adapter, sampled = world.data_dir / "adapters" / world.first, world.archive.directory(1)
    ids = [world.claimed[0].id]
    assert len(probes_of(adapter, [world.archive.directory(7), sampled], ids)) == 1
    assert len(probes_of(adapter, [world.archive.directory(7)], ids)) == len(world.claimed)


def test_what_was_erased_does_not_come_back_with_a_replay(make_world: Callable[..., Any]) -> None:
    world = make_world()
    forget(world.config, REQUEST, lambda: 500.0, quietly)

    async def replay() -> tuple[Any, Any]:
        store = open_store(world.config, lambda signal: None)
        try:
            offsets = await store.next_offsets("prompts")
            return offsets, await asyncio.wrap_future(store.submit(Ingest(tuple(world.prompts), {})))
        finally:
            store.close()

    offsets, ingested = asyncio.run(replay())
    assert offsets == {0: 40}
    assert ingested.duplicates == 40
    assert occurrences(world.data_dir, NEEDLE) == []


def test_a_dry_run_says_the_same_and_changes_nothing(make_world: Callable[..., Any]) -> None:
    world = make_world()
    before = {path: path.read_bytes() for path in world.data_dir.rglob("*") if path.is_file()}
    told = preview(world.config, REQUEST)
    after = {path: path.read_bytes() for path in world.data_dir.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"daemon.lock", "control.db"}  # SQLite counts that it was opened
    assert noted(world) == []
    done = forget(world.config, REQUEST, lambda: 500.0, quietly)
    for name in ("prompts", "rounds", "rows", "adapters"):
        assert told[name] == done[name], name


def test_nobody_is_nothing_to_erase_and_nothing_to_note(make_world: Callable[..., Any]) -> None:
    world = make_world()
    told = forget(world.config, ErasureRequest(Selector(SelectBy.SUBJECT, "eve"), "dpo", "r"), lambda: 1.0, quietly)
    assert told["prompts"] == 0
    assert noted(world) == []


@pytest.mark.chaos
@pytest.mark.parametrize("place", PLACES)
def test_an_erasure_that_is_killed_is_finished_by_the_next_run(make_world: Callable[..., Any], place: str) -> None:
    world = make_world()
    command = ["buffer", "forget", "--subject", ADA, "--yes", "--reason", "erasure request 12", "--json"]
    killed = run(world, *command, TAO_KILL_AT=f"erasure.{place}")
    assert killed.returncode == -9
    assert (world.data_dir / "erasure.json").exists()
    assert NEEDLE not in (world.data_dir / "erasure.json").read_text()
    assert ADA not in (world.data_dir / "erasure.json").read_text()
    assert asyncio.run(buffer_stats(world.config))["unfinished_erasure"]
    again = run(world, *command)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["finished_earlier"]
    check_erased(world)
    assert [event["count"] for event in noted(world)] == [10]


@pytest.mark.chaos
def test_the_copy_that_was_killed_is_no_leftover(make_world: Callable[..., Any]) -> None:
    world = make_world()
    command = ["buffer", "forget", "--subject", ADA, "--yes"]
    assert run(world, *command, TAO_KILL_AT="buffer.copied").returncode == -9
    with sole_owner(world.data_dir):
        assert finish_erasure(world.config, lambda: 9.0)
        assert not finish_erasure(world.config, lambda: 9.0)
    check_erased(world)


def test_an_adapter_of_nothing_but_erased_prompts_cannot_be_verified_and_says_so(
    make_world: Callable[..., Any],
) -> None:
    world = make_world()
    told = forget(world.config, ErasureRequest(Selector(SelectBy.TENANT, "acme"), "dpo", "r"), lambda: 1.0, quietly)
    assert [each["verifiable"] for each in told["adapters"]] == [False, False]
    assert world.adapters.get(world.first).fingerprint.probes == ()


def test_without_the_rounds_tables_every_probe_is_suspect(make_world: Callable[..., Any]) -> None:
    world = make_world()
    (world.archive.directory(1) / "completions.parquet").unlink()
    told = forget(world.config, REQUEST, lambda: 1.0, quietly)
    assert told["adapters"][0]["probes_left"] == 0
    assert world.adapters.get(world.first).fingerprint.probes == ()


def test_two_erasures_redact_one_after_the_other(make_world: Callable[..., Any]) -> None:
    world = make_world()
    forget(world.config, REQUEST, lambda: 1.0, quietly)
    bob = next(each for each in world.claimed if each.subject != ADA)
    forget(world.config, ErasureRequest(Selector(SelectBy.PROMPT_ID, bob.id), "dpo", "r"), lambda: 2.0, quietly)
    offsets = [probe.token_ids[0] - 90_000 for probe in world.adapters.get(world.first).fingerprint.probes]
    assert bob.source.offset not in offsets
    assert offsets
    assert len(noted(world)) == 2


def test_it_needs_the_daemon_stopped_and_a_buffer(make_world: Callable[..., Any]) -> None:
    world = make_world()
    with sole_owner(world.data_dir), pytest.raises(InstanceError, match=f"in use by process {os.getpid()}"):
        forget(world.config, REQUEST, lambda: 1.0, quietly)
    (world.data_dir / "tao.duckdb").unlink()
    with pytest.raises(PromptStoreError, match="there is no buffer at"):
        forget(world.config, REQUEST, lambda: 1.0, quietly)
    assert not (world.data_dir / "tao.duckdb").exists()


def run(world: Any, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TAO_CONFIG": str(world.path), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-m", "tao_daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
