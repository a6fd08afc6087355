"""`backup.json`: what a backup holds, file by file, so that a restore can prove it is all there and unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tao_daemon.clients.storage import atomic_write_json, digest_files
from tao_daemon.domain.errors import TaoError

NAME = "backup.json"
_FORMAT = 1
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class StoredFile:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupManifest:
    taken_at: float
    """Unix seconds."""
    version: str
    """Of the tao-daemon that wrote it."""
    journal: tuple[int, str] | None
    """Sequence number and hash of the last entry; None without a journal."""
    prompts: int
    files: Mapping[str, StoredFile]
    """By path below the backup."""


def describe(directory: Path) -> dict[str, StoredFile]:
    """Every file below a directory but the manifest, in order of the paths."""
    digests = digest_files(directory)
    return {name: StoredFile((directory / name).stat().st_size, each) for name, each in digests.items() if name != NAME}


def write_manifest(directory: Path, manifest: BackupManifest) -> None:
    atomic_write_json(directory / NAME, {"format": _FORMAT, **asdict(manifest)})


def read_manifest(directory: Path) -> BackupManifest:
    """Raises TaoError when the directory is no backup that this version reads."""
    path = directory / NAME
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = value.pop("format")
        if found != _FORMAT:
            raise TaoError(f"{path} has format {found!r}, this version knows {_FORMAT}; restore with the newer version")
        value["files"] = {str(name): StoredFile(**each) for name, each in value["files"].items()}
        value["journal"] = tuple(value["journal"]) if value["journal"] else None
        return BackupManifest(**value)
    except OSError as error:
        raise TaoError(
            f"{directory} is not a backup: {NAME}: {error.strerror}; name the directory it was made as"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaoError(f"{path} is not a backup's manifest ({type(error).__name__}); use another backup") from None


def check_files(source: Path, expected: Mapping[str, StoredFile], present: Mapping[str, StoredFile]) -> None:
    """Raises TaoError that names what is missing, changed or was added."""
    problems = [f"{name} is missing" for name in expected.keys() - present.keys()]
    problems += [f"{name} was added" for name in present.keys() - expected.keys()]
    problems += [f"{name} was changed" for name in expected.keys() & present.keys() if expected[name] != present[name]]
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        shown = "; ".join(sorted(problems)[:_SHOWN_PROBLEMS])
        raise TaoError(f"the backup {source} is not whole: {shown}{more}; nothing was restored, use another backup")
