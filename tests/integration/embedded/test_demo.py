"""`tao-daemon demo` as a command: whatever ends it, whenever, nothing that it started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]


def start(work_dir: Path, *options: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tao_daemon", "demo", "--keep", str(work_dir), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **env},
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}:\n{seen}")


def left_over(marker: str) -> list[str]:
    """Command lines of processes, other than this one, that were started for the demo in that directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if command and (marker in command or marker in environment):
            found.append(command)
    return found


def wait_until_gone(marker: str) -> list[str]:
    deadline = time.monotonic() + 10.0
    while (left := left_over(marker)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


@pytest.mark.parametrize(
    ("at", "number"),
    [("vLLM server", signal.SIGTERM), ("vLLM server", signal.SIGINT), ("Kafka broker", signal.SIGTERM)],
)
def test_a_signal_while_it_starts_ends_everything(tmp_path: Path, at: str, number: signal.Signals) -> None:
    # vLLM's processes inherit TMPDIR, so that they can be told from those of others.
    marker = str(tmp_path)
    process = start(tmp_path / "demo", TMPDIR=marker)
    read_until(process, at)
    time.sleep(2.0)
    assert len(left_over(marker)) >= 3, "the demo, a guard and a server"
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out
    assert "everything that the demo started has ended" in out
    assert wait_until_gone(marker) == []


def test_a_signal_during_the_model_conversion_ends_it(tmp_path: Path) -> None:
    marker = str(tmp_path)
    process = start(tmp_path / "demo", TMPDIR=marker, XDG_CACHE_HOME=str(tmp_path / "cache"))
    read_until(process, "loading torch")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT, out
    assert wait_until_gone(marker) == []


def test_killing_the_demo_itself_leaves_nothing(tmp_path: Path) -> None:
    marker = str(tmp_path)
    process = start(tmp_path / "demo", TMPDIR=marker)
    read_until(process, "vLLM server")
    time.sleep(2.0)
    assert len(left_over(marker)) >= 3
    process.kill()
    process.communicate(timeout=30)
    assert wait_until_gone(marker) == []


def test_once_fails_with_the_reason_at_its_time_limit(tmp_path: Path) -> None:
    process = start(tmp_path / "demo", "--once", "--time-limit", "4", TMPDIR=str(tmp_path))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert "error: no adapter was promoted within 4 s: it was still at:" in out
    assert wait_until_gone(str(tmp_path)) == []


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    process = start(tmp_path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "is not empty" in out
    assert (tmp_path / "precious").read_text() == "mine"
