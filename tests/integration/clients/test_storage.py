"""Files written atomically: a reader sees the old content or the new, and nothing half-made stays."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tao_daemon.clients.storage import (
    atomic_write_bytes,
    atomic_write_json,
    digest_files,
    free_bytes,
    publishing,
    publishing_file,
    remove_unfinished,
    remove_unfinished_of,
    replacing,
    require_room,
    sha256_file,
    size_of,
)
from tao_daemon.domain.errors import TaoError


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    atomic_write_bytes(path, b"old")
    atomic_write_json(path, {"generation": 1, "adapter": "ä"})
    assert path.read_text(encoding="utf-8") == '{\n  "generation": 1,\n  "adapter": "ä"\n}\n'
    assert os.listdir(tmp_path) == ["routes.json"]


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    atomic_write_bytes(path, b"old")
    with pytest.raises(ValueError, match=r"JSON compliant"):
        atomic_write_json(path, {"x": float("nan")})
    with pytest.raises(TypeError):
        atomic_write_bytes(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["routes.json"]


def test_a_file_that_fails_while_it_is_written_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for write in (publishing_file, replacing):
        with write(path) as file:
            file.write(write.__name__.encode())
        with pytest.raises(ZeroDivisionError), replacing(path) as file:
            file.write(b"a part" + bytes([file.write(b"a part") // 0]))
        assert path.read_bytes() == write.__name__.encode()
        assert os.listdir(tmp_path) == ["audit.jsonl"]


def test_a_published_file_is_never_replaced_and_is_named_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError) as caught, publishing_file(path) as file:
        file.write(b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["prompts.jsonl"]


def test_a_file_allows_no_more_than_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.touch(0o644)
    with replacing(path, mode=0o600) as file:
        [unfinished] = [each for each in tmp_path.iterdir() if each != path]
        assert unfinished.stat().st_mode & 0o777 == 0o600, "from its first byte on"
        file.write(b"{}")
    assert path.stat().st_mode & 0o777 == 0o600
    atomic_write_json(path, {}, mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = {bytes([letter]) * 300_000 for letter in b"ab"}
    atomic_write_bytes(path, min(contents))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                atomic_write_bytes(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(path.read_bytes() in contents for _ in range(300))
    finally:
        stop.set()
        writer.join()


def test_a_writer_killed_at_any_moment_leaves_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "state"
    program = (
        "import sys, itertools; from pathlib import Path; from tao_daemon.clients.storage import atomic_write_bytes\n"
        "for n in itertools.count():\n"
        "    atomic_write_bytes(Path(sys.argv[1]), b'%d' % (n % 10) * 200_000); print(n, flush=True)\n"
    )
    for kills in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        for _ in range(3 + kills):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.communicate()
        content = path.read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["state"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with publishing(target) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "file").write_bytes(b"content")
        assert not target.exists()
    assert (target / "sub" / "file").read_bytes() == b"content"
    with pytest.raises(ZeroDivisionError), publishing(tmp_path / "other") as draft:
        (draft / "file").write_bytes(bytes([1 // 0]))
    assert os.listdir(tmp_path) == ["adapter"]


@pytest.mark.parametrize("content", [[], ["old"]])
def test_what_is_published_is_never_replaced(tmp_path: Path, content: list[str]) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    for name in content:
        (target / name).write_bytes(b"old")
    with pytest.raises(FileExistsError), publishing(target) as draft:
        (draft / "new").write_bytes(b"new")
    assert os.listdir(target) == content
    assert os.listdir(tmp_path) == ["adapter"]


def test_unfinished_directories_and_files_are_removed_and_links_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"x")
    (tmp_path / ".tmp-dir").mkdir()
    (tmp_path / ".tmp-dir" / "file").write_bytes(b"x")
    (tmp_path / ".tmp-file").write_bytes(b"x")
    (tmp_path / ".tmp-link").symlink_to(kept)
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
    assert (kept / "file").exists()


def test_what_is_left_of_one_target_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = [".tmp-a[b]-01234567", ".tmp-a[b]-c-01234567", ".tmp-ab-01234567", ".tmp-a[b]-backup", "a[b]"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".tmp-a[b]-89abcdef").mkdir()
    remove_unfinished_of(tmp_path / "a[b]")
    assert sorted(os.listdir(tmp_path)) == sorted(names[1:])


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    require_room(tmp_path, size_of(tmp_path), "a copy")
    with pytest.raises(TaoError, match=r"a copy needs \d+ MiB and .* make room first"):
        require_room(tmp_path, free_bytes(tmp_path), "a copy")


def test_digests_are_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b").write_bytes(b"1" * 3_000_000)
    (tmp_path / "sub" / "a").write_bytes(b"2")
    assert sha256_file(tmp_path / "b") == hashlib.sha256(b"1" * 3_000_000).hexdigest()
    assert digest_files(tmp_path) == {
        "b": hashlib.sha256(b"1" * 3_000_000).hexdigest(),
        "sub/a": hashlib.sha256(b"2").hexdigest(),
    }


def test_free_space_is_the_file_systems(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert free_bytes(tmp_path) == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)
