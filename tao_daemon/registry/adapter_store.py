"""Adapters on disk: one immutable directory each, named by round and digest, verified whenever it is read.

Only what passed preflight gets in; only what is byte for byte the same gets out. One writer, any readers.

artefact → copy → preflight → manifest → fsync → rename → get verifies every digest → delete
"""

from __future__ import annotations

import logging
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tao_daemon.clients.storage import (
    UNFINISHED,
    atomic_write_json,
    fsync_directory,
    publishing,
    remove_unfinished,
    sha256_file,
)
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, Lineage
from tao_daemon.domain.errors import AdapterError
from tao_daemon.registry import preflight
from tao_daemon.registry.manifest import (
    Manifest,
    is_adapter_name,
    manifest_from_json,
    manifest_to_json,
)
from tao_daemon.registry.tensors import LENGTH_BYTES, MAX_HEADER_BYTES, parse_header, parse_json

MANIFEST = "manifest.json"
_SHOWN_PROBLEMS = 5

log = logging.getLogger(__name__)


class DirectoryAdapterStore:
    """`domain.ports.AdapterStore` in `root`. Blocking; safe from any thread but for one publisher."""

    def __init__(self, root: Path, *, max_rank: int) -> None:
        self._root = root.absolute()
        self._max_rank = max_rank

    @property
    def root(self) -> Path:
        """The directory in which an adapter's own has the adapter's name."""
        return self._root

    def publish(self, directory: str, lineage: Lineage, created_at: float) -> AdapterRecord:
        """Check an artefact and copy it into the store atomically; the same one again is the same adapter.

        Raises AdapterError with every problem of preflight, and leaves nothing behind.
        """
        source = Path(directory)
        names = _file_names(source)
        _refuse(source, preflight.check_files(names))
        rank = _rank(source, self._max_rank)
        manifest = Manifest(created_at, rank, lineage, {name: sha256_file(source / name) for name in names})
        target = self._root / manifest.name
        if not target.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self._root)
            self._copy(source, target, manifest)
            log.info("adapter published", extra={"adapter": manifest.name, "rank": rank})
        return self.get(manifest.name)

    def get(self, name: str) -> AdapterRecord:
        """The adapter with every digest verified. Raises AdapterError that names the file."""
        path = self._root / name
        if not is_adapter_name(name) or not path.is_dir() or path.is_symlink():
            raise AdapterError(f"there is no adapter {name!r} in {self._root}; see `tao-daemon adapters`")
        present = _file_names(path) - {MANIFEST}
        try:
            manifest = manifest_from_json(_read_json(path / MANIFEST))
        except ValueError as error:
            raise AdapterError(f"{path / MANIFEST}: {error}; restore the adapter from a backup") from None
        _refuse(path, _differences(path, present, manifest, name))
        return AdapterRecord(
            name=name,
            digest=manifest.digest,
            path=path,
            rank=manifest.rank,
            created_at=manifest.created_at,
            lineage=manifest.lineage,
            fingerprint=_read_fingerprint(path),
            files=manifest.files,
        )

    def names(self) -> tuple[str, ...]:
        """Every adapter in the store, oldest round first. Nothing is verified."""
        if not self._root.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._root.iterdir() if is_adapter_name(path.name)))

    def delete(self, name: str) -> None:
        """Remove an adapter for good; a name that is not there is fine. A reader sees all of it or nothing."""
        if not is_adapter_name(name):
            return
        # What a crash leaves under this name is cleared by the next publisher.
        doomed = self._root / f"{UNFINISHED}{name}-{secrets.token_hex(4)}"
        try:
            (self._root / name).rename(doomed)
        except FileNotFoundError:
            return
        fsync_directory(self._root)
        shutil.rmtree(doomed, ignore_errors=True)
        log.info("adapter deleted", extra={"adapter": name})

    def _copy(self, source: Path, target: Path, manifest: Manifest) -> None:
        """Check the copy and not the source: what is published is then what was checked."""
        with publishing(target) as copy:
            for name, digest in manifest.files.items():
                # Content only: a trainer's 0600 would keep a server of another user from reading it.
                shutil.copyfile(source / name, copy / name, follow_symlinks=False)
                if sha256_file(copy / name) != digest:
                    raise AdapterError(f"{source / name} changed during the copy; is a trainer still writing?")
            _check_content(copy, self._max_rank)
            atomic_write_json(copy / MANIFEST, manifest_to_json(manifest))


def _check_content(directory: Path, max_rank: int) -> None:
    config = _read_config(directory)
    problems = preflight.check_config(config, max_rank)
    path = directory / preflight.WEIGHTS
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            data_bytes = path.stat().st_size - LENGTH_BYTES - length
            if length > MAX_HEADER_BYTES or data_bytes < 0:
                raise ValueError(f"a header of {length} bytes does not fit; the file is cut, or no safetensors")
            tensors = parse_header(file.read(length), data_bytes)
    except ValueError as error:
        raise AdapterError(f"adapter refused: {preflight.WEIGHTS}: {error}") from None
    problems += preflight.check_tensors(tensors, config)
    if tensors and data_bytes:
        data = np.memmap(path, dtype=np.uint8, mode="r", offset=LENGTH_BYTES + length, shape=(data_bytes,))
        problems += preflight.check_values(tensors, data)
    problems += preflight.check_fingerprint(_read_fingerprint(directory))
    _refuse(directory, problems)


def _differences(path: Path, present: set[str], manifest: Manifest, name: str) -> list[str]:
    problems = [f"{file} is missing" for file in sorted(manifest.files.keys() - present)]
    problems += [f"{file} was added" for file in sorted(present - manifest.files.keys())]
    for file in sorted(present & manifest.files.keys()):
        if not manifest.accepts(file, sha256_file(path / file)):
            problems.append(f"{file} was changed")
    if manifest.name != name:
        problems.append(f"{MANIFEST} belongs to {manifest.name}")
    return problems


def _refuse(directory: Path, problems: list[str]) -> None:
    if not problems:
        return
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    # The temporary name of a copy would tell nobody anything.
    where = "" if directory.name.startswith(".") else f" {directory}"
    raise AdapterError(f"adapter{where} refused: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")


def _file_names(directory: Path) -> set[str]:
    """Names of the files in a directory. Raises AdapterError for anything that is not a plain file."""
    try:
        entries = list(directory.iterdir())
    except OSError as error:
        raise AdapterError(f"cannot read the adapter in {directory}: {error.strerror}") from None
    strange = [entry.name for entry in entries if entry.is_symlink() or not entry.is_file()]
    _refuse(directory, [f"{name} is not a plain file" for name in sorted(strange)])
    return {entry.name for entry in entries}


def _rank(directory: Path, max_rank: int) -> int:
    config = _read_config(directory)
    _refuse(directory, preflight.check_config(config, max_rank))
    rank = config["r"]
    assert isinstance(rank, int), rank
    return rank


def _read_config(directory: Path) -> Any:
    try:
        return _read_json(directory / preflight.CONFIG)
    except ValueError as error:
        raise AdapterError(f"adapter refused: {preflight.CONFIG}: {error}") from None


def _read_fingerprint(directory: Path) -> Fingerprint:
    try:
        return Fingerprint.from_json((directory / preflight.FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter refused: {preflight.FINGERPRINT}: {error}") from None


def _read_json(path: Path) -> Any:
    """Raises ValueError for what is not JSON, or not there."""
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
