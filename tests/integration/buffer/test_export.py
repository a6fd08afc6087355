"""What is exported can be imported: here it changes nothing, elsewhere it is the same prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.exporting import Filter, read_all


def run(world: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TAO_CONFIG": str(world.path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tao_daemon", "buffer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def rows(path: Path) -> list[Any]:
    with closing(open_database(path)) as connection:
        return list(read_all(connection, Filter()))


def test_an_export_is_the_same_buffer_elsewhere(make_world: Callable[..., Any]) -> None:
    world = make_world()
    file = world.root / "prompts.jsonl"
    done = run(world, "export", str(file), "--json")
    assert json.loads(done.stdout) == {"file": str(file), "prompts": 40}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in world.root.glob("*prompts.jsonl*")] == ["prompts.jsonl"]
    again = json.loads(run(world, "import", str(file), "--json").stdout)
    assert (again["duplicates"], again["rejected"]) == (40, [])
    before = rows(world.data_dir / "tao.duckdb")
    world.data_dir.rename(world.root / "old")
    assert run(world, "import", str(file)).returncode == 0
    assert rows(world.data_dir / "tao.duckdb") == before


def test_an_export_is_filtered_goes_to_stdout_and_replaces_nothing(make_world: Callable[..., Any]) -> None:
    world = make_world()
    found = [json.loads(line) for line in run(world, "export", "--since", "1970-01-01T00:17", "-").stdout.splitlines()]
    assert [line["source"]["offset"] for line in found] == list(range(20, 40))
    assert {line["headers"]["tenant"] for line in found} == {"acme"}
    assert run(world, "export", "--tenant", "nobody", "-").stdout == ""
    held_out = run(world, "export", "--split", "held_out", "-").stdout.splitlines()
    assert held_out
    assert {json.loads(line)["split"] for line in held_out} == {"held_out"}
    there = world.root / "config.toml"
    refused = run(world, "export", str(there))
    assert refused.returncode == 1
    assert "File exists" in refused.stderr
    assert "data_dir" in there.read_text()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["forget"], "give one of --subject"),
        (["forget", "--subject", "a", "--tenant", "b"], "give one of --subject"),
        (["forget", "--subject", ""], "the subject is empty"),
        (["forget", "--subject", "ada@example.org"], "--yes says that you want that"),
        (["export", "--since", "yesterday", "-"], "is no moment"),
        (["redrive", "--limit", "0"], "not in the range"),
    ],
)
def test_wrong_usage_says_what_is_right(make_world: Callable[..., Any], arguments: list[str], what: str) -> None:
    done = run(make_world(), *arguments)
    assert done.returncode == 2
    assert what in done.stderr


def test_people_read_what_happened_and_what_to_do(make_world: Callable[..., Any]) -> None:
    world = make_world()
    dry = run(world, "forget", "--subject", "ada@example.org", "--dry-run")
    assert "10 prompts and" in dry.stdout
    assert "would be erased, in rounds 1" in dry.stdout
    done = run(world, "forget", "--subject", "ada@example.org", "--yes")
    assert f"{world.first}: trained on" in done.stdout
    assert "serves everything" in done.stdout
    assert "continues one trained on them" in done.stdout
    assert "rollout undo --to base" in done.stdout
    assert "not reached: the topics in Kafka" in done.stdout
    assert "no prompt has this subject" in run(world, "forget", "--subject", "ada@example.org", "--yes").stdout
    stats = run(world, "stats").stdout
    assert "30  acme" in stats
    assert "intake       stopped" in stats
    assert "10 prompts erased by subject" in run_audit(world)


def run_audit(world: Any) -> str:
    env = {**os.environ, "TAO_CONFIG": str(world.path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tao_daemon", "audit", "show"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=True).stdout
