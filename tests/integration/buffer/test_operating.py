"""The commands on a daemon with a real broker: refused while it runs, and nothing lost or doubled around it."""

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
from tao_daemon.domain.prompt import Source

COMMANDS = (
    ("forget", "--subject", "x", "--yes"),
    ("redrive",),
    ("export", "never.jsonl"),
    ("import", "config.toml"),
    ("backup", "never"),
)


def request(number: int, length: int = 0) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"question {number} " + "x" * length}]}


def buffered(site: Any) -> list[str]:
    with closing(open_database(Path(site.config["daemon"]["data_dir"]) / "tao.duckdb")) as connection:
        return sorted(row[0] for row in connection.execute("SELECT id FROM prompts").fetchall())


def expected(site: Any, places: list[tuple[int, int]]) -> list[str]:
    return sorted(Source(site.config["kafka"]["topic"], *place).prompt_id for place in places)


def count(site: Any) -> int:
    stats = site.status()["buffer"] or {}
    return sum(stats.get(name, 0) for name in ("train", "held_out", "excluded"))


def told(site: Any, *arguments: str) -> Any:
    done = site.run("buffer", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.chaos
def test_backed_up_destroyed_and_restored_the_daemon_goes_on_with_nothing_lost_or_doubled(
    make_site: Callable[..., Any], produce: Callable[..., list[tuple[int, int]]]
) -> None:
    site = make_site(serving={"replicas": ["http://127.0.0.1:9"]})
    topic = site.config["kafka"]["topic"]
    places = produce(topic, [request(i) for i in range(50)])
    site.start()
    site.wait(lambda: count(site) == 50, 60, "50 prompts")
    for command in COMMANDS:
        refused = site.run(
            "buffer",
            *(str(site.root / each) if each in ("never", "never.jsonl", "config.toml") else each for each in command),
        )
        assert refused.returncode == 1, command
        assert f"is in use by process {site.daemon.pid}" in refused.stderr, command
    running = told(site, "stats")
    assert running["stats"]["train"] + running["stats"]["held_out"] + running["stats"]["excluded"] == 50
    assert site.daemon.stop() == 0
    stopped = told(site, "stats")
    assert stopped["stats"] == running["stats"]
    assert stopped["details"]["tenants"] == [["", 50]]

    backup = site.root / "backup"
    assert told(site, "backup", str(backup))["prompts"] == 50
    places += produce(topic, [request(i) for i in range(50, 80)])
    site.start()
    site.wait(lambda: count(site) == 80, 60, "80 prompts")
    site.daemon.kill()
    data_dir = Path(site.config["daemon"]["data_dir"])
    for path in (*data_dir.glob("tao.duckdb*"), *data_dir.glob("control.db*")):
        path.write_bytes(b"destroyed")

    assert "--force" in site.run("buffer", "restore", str(backup)).stderr
    assert told(site, "restore", "--force", str(backup))["prompts"] == 50
    places += produce(topic, [request(i) for i in range(80, 90)])
    site.start()
    site.wait(lambda: count(site) == 90, 60, "90 prompts")
    assert site.run("audit", "verify").returncode == 0
    assert site.daemon.stop() == 0
    assert buffered(site) == expected(site, places)


@pytest.mark.chaos
def test_dead_letters_are_buffered_once_when_they_can_be_read(
    make_site: Callable[..., Any], produce: Callable[..., list[tuple[int, int]]]
) -> None:
    site = make_site(serving={"replicas": ["http://127.0.0.1:9"]}, buffer={"max_prompt_bytes": 500})
    topic = site.config["kafka"]["topic"]
    good = produce(topic, [request(i) for i in range(5)])
    large = produce(topic, [request(i, 1000) for i in range(5, 15)], [("tenant", b"acme"), ("subject", b"ada")])
    produce(topic, [b"no json", b"", b"\xff"])
    last = produce(topic, [request(99)])
    site.start()
    site.wait(lambda: count(site) == 6, 60, "the good ones")
    assert site.daemon.stop() == 0

    assert told(site, "redrive") == {
        "read": 13,
        "buffered": 0,
        **dict.fromkeys(("train", "held_out", "excluded", "duplicates"), 0),
        "still_failing": {"empty": 1, "not_json": 1, "not_utf8": 1, "too_large": 10},
        "dry_run": False,
    }
    site.config["buffer"]["max_prompt_bytes"] = 5000
    site.write_config()
    foreseen = told(site, "redrive", "--dry-run", "--code", "too_large")
    assert (foreseen["read"], foreseen["buffered"], foreseen["still_failing"]) == (10, 10, {})
    assert buffered(site) == expected(site, good + last)

    assert told(site, "redrive", "--limit", "4")["buffered"] == 4
    rest = told(site, "redrive")
    assert (rest["buffered"], rest["duplicates"]) == (6, 4)
    assert (told(site, "redrive")["buffered"], told(site, "redrive")["duplicates"]) == (0, 10)
    assert buffered(site) == expected(site, good + large + last)
    assert told(site, "redrive", "--since", "2100-01-01")["read"] == 0

    assert told(site, "forget", "--subject", "ada", "--yes")["prompts"] == 10
    assert told(site, "redrive")["duplicates"] == 10, "what was erased stays away"
    assert buffered(site) == expected(site, good + last)
    site.start()  # offsets were left alone: nothing is read again
    produce(topic, [request(100)])
    site.wait(lambda: count(site) == 7, 60, "one more")


def test_a_daemon_that_starts_finishes_an_erasure_first(
    make_site: Callable[..., Any], produce: Callable[..., list[tuple[int, int]]]
) -> None:
    site = make_site(serving={"replicas": ["http://127.0.0.1:9"]})
    produce(site.config["kafka"]["topic"], [request(i) for i in range(5)])
    produce(site.config["kafka"]["topic"], [request(7000)], [("subject", b"ada")])
    site.start()
    site.wait(lambda: count(site) == 6, 60, "6 prompts")
    assert site.daemon.stop() == 0
    env = {**os.environ, "TAO_CONFIG": str(site.root / "config.toml"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tao_daemon", "buffer", "forget", "--subject", "ada", "--yes"]
    killed = subprocess.run(command, env={**env, "TAO_KILL_AT": "erasure.deleted"}, timeout=60, check=False)
    assert killed.returncode == -9
    database = Path(site.config["daemon"]["data_dir"]) / "tao.duckdb"
    assert b"question 7000" in database.read_bytes()
    site.start()
    assert count(site) == 5
    assert site.daemon.stop() == 0
    assert b"question 7000" not in database.read_bytes()
    assert "1 prompts erased by subject" in site.run("audit", "show").stdout


def test_no_broker_is_said_in_time(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"bootstrap_servers": ["127.0.0.1:1"]})
    site.write_config()
    failed = site.run("buffer", "redrive")
    assert failed.returncode == 1
    assert "no broker answers at 127.0.0.1:1" in failed.stderr
