"""A backup is whole or not there; a restore proves it first, keeps what was there, and forgets again."""

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

from tao_daemon.app.operations.backups import back_up
from tao_daemon.app.operations.erasing import ErasureRequest, forget
from tao_daemon.app.operations.restoring import restore
from tao_daemon.app.paths import journal_path
from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.erasing import SelectBy, Selector
from tao_daemon.clients.exchange import exchange
from tao_daemon.clients.storage import digest_files
from tao_daemon.control.scopes import Scope
from tao_daemon.control.tokens import TokenFile
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.daemon.supervisor import last_state
from tao_daemon.domain.errors import InstanceError, TaoError
from tao_daemon.registry.journal import Journal

NEEDLE = "kümmel-zwieback-4711"
ADA = "ada@example.org"
TAKEN, RESTORED = 1_700_000_000.0, 1_700_086_400.0


def quietly(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def backed_up(world: Any, name: str = "backup") -> Path:
    target: Path = world.root / name
    told = back_up(world.config, target, lambda: TAKEN, quietly)
    assert told["prompts"] == 40
    return target


def restored(world: Any, source: Path, *, replace: bool = False) -> dict[str, Any]:
    return restore(world.config, source, lambda: RESTORED, quietly, replace=replace, actor="ann", reason="a fire")


def ids(world: Any) -> set[str]:
    with closing(open_database(world.data_dir / "tao.duckdb")) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM prompts").fetchall()}


def check_restored(world: Any) -> None:
    assert ids(world) == {each.id for each in world.prompts}
    assert world.adapters.get(world.first).name == world.first
    assert len(world.archive.completions(1)) == len(world.claimed)
    with closing(Journal(journal_path(world.config))) as journal:
        journal.verify()
        last = journal.last()
        state = last_state(journal)
    assert last is not None
    assert (last.event["type"], last.actor) == ("BackupRestored", "ann")
    assert state.routes.adapter == world.first
    assert state.routes.generation == int(RESTORED), "above what any gateway has"
    assert json.loads((world.data_dir / "routes.json").read_text())["generation"] == int(RESTORED)


def test_a_backup_holds_everything_but_secrets_and_leftovers(make_world: Callable[..., Any]) -> None:
    world = make_world()
    (world.data_dir / "control.token").write_text("secret")
    target = backed_up(world)
    assert target.stat().st_mode & 0o777 == 0o700
    manifest = json.loads((target / "backup.json").read_text())
    files = set(manifest["files"])
    assert {"tao.duckdb", "control.db", "tokens.json", "rounds/000001/report.json"} < files
    assert f"adapters/{world.second}/manifest.json" in files
    assert not [name for name in files if "training" in name or name.endswith(".tmp") or "control.token" in name]
    digests = digest_files(target)
    assert {name: digests[name] for name in files} == {n: each["sha256"] for n, each in manifest["files"].items()}
    assert set(digests) == files | {"backup.json"}
    with closing(Journal(journal_path(world.config))) as journal:
        last = journal.last()
    assert last is not None
    assert manifest["journal"] == [last.seq, last.hash]
    assert not list(world.root.glob(".tmp-*"))


def test_a_backup_never_replaces_and_never_lies_in_what_it_is_of(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = backed_up(world)
    for wrong, why in (
        (target, "exists; a backup never replaces"),
        (world.data_dir / "b", "lies in data_dir"),
        (world.root / "absent" / "b", "is not a directory; make it first"),
    ):
        with pytest.raises(TaoError, match=why):
            back_up(world.config, wrong, lambda: TAKEN, quietly)
    with sole_owner(world.data_dir), pytest.raises(InstanceError, match=f"in use by process {os.getpid()}"):
        back_up(world.config, world.root / "other", lambda: TAKEN, quietly)
    assert not (world.root / "other").exists()


def test_no_room_is_said_before_anything_is_written(make_world: Callable[..., Any], monkeypatch: Any) -> None:
    world = make_world()
    target = backed_up(world)
    monkeypatch.setattr("tao_daemon.clients.storage.free_bytes", lambda path: 1024)
    with pytest.raises(TaoError, match="0 MiB free; make room first"):
        back_up(world.config, world.root / "second", lambda: TAKEN, quietly)
    with pytest.raises(TaoError, match="0 MiB free; make room first"):
        restored(world, target, replace=True)
    with pytest.raises(TaoError, match="0 MiB free; make room first"):
        forget(world.config, ErasureRequest(Selector(SelectBy.SUBJECT, ADA), "dpo", "r"), lambda: 1.0, quietly)
    assert sorted(path.name for path in world.root.glob("*")) == [
        "artefact-1",
        "artefact-2",
        "backup",
        "config.toml",
        "data",
    ]
    assert not (world.data_dir / "erasure.json").exists()


def test_a_lost_data_dir_comes_back(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = backed_up(world)
    world.data_dir.rename(world.root / "lost")
    told = restored(world, target)
    assert (told["moved_aside"], told["prompts"], told["forgotten_again"]) == (None, 40, 0)
    check_restored(world)
    assert sorted(path.name for path in world.root.glob("data*")) == ["data"]


def test_what_is_there_is_kept_aside_and_only_when_asked(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = backed_up(world)
    (world.data_dir / "control.token").write_text("secret")
    (world.data_dir / "newer.txt").write_text("work since")
    before = digest_files(world.data_dir)
    with pytest.raises(TaoError, match=r"is not empty .*--force moves it aside"):
        restored(world, target)
    before.pop("daemon.lock", None)
    assert {name: digest for name, digest in digest_files(world.data_dir).items() if name != "daemon.lock"} == before
    told = restored(world, target, replace=True)
    check_restored(world)
    aside = Path(told["moved_aside"])
    assert aside.name == "data.before-20231115T221320Z"
    assert (aside / "newer.txt").read_text() == "work since"
    assert (world.data_dir / "control.token").read_text() == "secret", "who has the token keeps it"
    assert not (world.data_dir / "newer.txt").exists()


def test_what_was_forgotten_since_is_forgotten_again(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = backed_up(world)
    forget(world.config, ErasureRequest(Selector(SelectBy.SUBJECT, ADA), "dpo", "r"), lambda: TAKEN + 1, quietly)
    told = restored(world, target, replace=True)
    assert told["forgotten_again"] == 10
    assert ids(world) == {each.id for each in world.prompts if each.subject != ADA}
    assert not [path for path in world.data_dir.rglob("*") if path.is_file() and NEEDLE.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["tao.duckdb", "control.db", "rounds/000001/completions.parquet"])
def test_a_flipped_bit_is_found_before_anything_moves(make_world: Callable[..., Any], name: str) -> None:
    world = make_world()
    target = backed_up(world)
    content = bytearray((target / name).read_bytes())
    content[len(content) // 2] ^= 1
    (target / name).write_bytes(content)
    with pytest.raises(TaoError, match=f"is not whole: {name} was changed; nothing was restored"):
        restored(world, target, replace=True)
    assert ids(world) == {each.id for each in world.prompts}
    assert not list(world.root.glob("data.*"))
    assert not list(world.root.glob(".tmp-*"))


def test_a_file_too_few_or_too_many_is_found(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = backed_up(world)
    (target / "tokens.json").unlink()
    (target / "stray.txt").write_text("x")
    with pytest.raises(TaoError, match=r"stray\.txt was added; tokens\.json is missing"):
        restored(world, target, replace=True)
    (target / "backup.json").unlink()
    with pytest.raises(TaoError, match="is not a backup"):
        restored(world, target, replace=True)


def test_a_journal_that_was_changed_with_its_digest_is_found(make_world: Callable[..., Any]) -> None:
    """Who changes the journal can change the manifest too, but not the hash chain."""
    world = make_world()
    target = backed_up(world)
    import sqlite3

    with closing(sqlite3.connect(target / "control.db")) as db:
        db.execute("UPDATE journal SET actor = 'mallory' WHERE seq = 2")
        db.commit()
    manifest = json.loads((target / "backup.json").read_text())
    digests = digest_files(target)
    for name, each in manifest["files"].items():
        each |= {"sha256": digests[name], "bytes": (target / name).stat().st_size}
    (target / "backup.json").write_text(json.dumps(manifest))
    with pytest.raises(TaoError, match="entry 2 was changed after it was written"):
        restored(world, target, replace=True)


@pytest.mark.chaos
def test_killed_in_the_middle_there_is_no_backup_and_the_next_one_works(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = world.root / "backup"
    assert run(world, "buffer", "backup", str(target), TAO_KILL_AT="backup.copied").returncode == -9
    assert not target.exists()
    done = run(world, "buffer", "backup", str(target), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompts"] == 40
    assert not list(world.root.glob(".tmp-*"))


@pytest.mark.chaos
def test_a_restore_that_is_killed_leaves_the_old_and_the_next_one_works(make_world: Callable[..., Any]) -> None:
    world = make_world()
    target = backed_up(world)
    (world.data_dir / "newer.txt").write_text("work since")
    assert run(world, "buffer", "restore", "--force", str(target), TAO_KILL_AT="restore.staged").returncode == -9
    assert (world.data_dir / "newer.txt").exists()
    done = run(world, "buffer", "restore", "--force", str(target))
    assert done.returncode == 0, done.stderr
    assert "what was there is in" in done.stdout
    assert ids(world) == {each.id for each in world.prompts}
    assert not list(world.root.glob(".tmp-*"))


def test_a_mount_point_is_filled_entry_by_entry(make_world: Callable[..., Any], monkeypatch: Any) -> None:
    world = make_world()
    target = backed_up(world)
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    told = restored(world, target, replace=True)
    check_restored(world)
    assert Path(told["moved_aside"]).parent == world.data_dir
    assert (Path(told["moved_aside"]) / "tao.duckdb").exists()
    assert not list(world.data_dir.glob(".tmp-*"))


def test_directories_change_places(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    for path in (left, right):
        path.mkdir()
        (path / path.name).touch()
    exchange(left, right)
    assert [path.name for path in left.iterdir()] == ["right"]
    assert [path.name for path in right.iterdir()] == ["left"]
    with pytest.raises(FileNotFoundError):
        exchange(left, tmp_path / "absent")


def run(world: Any, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TAO_CONFIG": str(world.path), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-m", "tao_daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def test_a_token_that_was_revoked_since_stays_revoked(make_world: Callable[..., Any]) -> None:
    world = make_world()
    tokens = TokenFile(world.data_dir)
    (world.data_dir / "tokens.json").unlink(missing_ok=True)
    token, secret = tokens.prepare("ann", [Scope.ADMIN], None, TAKEN)
    tokens.add(token)
    target = backed_up(world)
    tokens.revoke(token.id, TAKEN + 1)
    restored(world, target, replace=True)
    assert TokenFile(world.data_dir).holder(secret, RESTORED) is None
    (world.data_dir / "tokens.json").write_text("damaged")
    restore(world.config, target, lambda: RESTORED + 1, quietly, replace=True, actor="ann", reason="again")
    assert TokenFile(world.data_dir).find(token.id).name == "ann", "what cannot be read is not kept"
