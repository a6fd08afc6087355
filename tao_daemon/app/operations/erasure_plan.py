"""An erasure that has begun, on disk until it has ended: what to take out of where.

It holds no text: identifiers and digests. A crash leaves it there, and whoever comes next finishes it.

planned → fingerprints → rounds → buffer → file compacted → journaled → (gone)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tao_daemon.clients.storage import atomic_write_json, fsync_directory
from tao_daemon.domain.errors import TaoError

_FILE = "erasure.json"


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    erasure: str
    """Identifies it in the journal."""
    selected_by: str
    ids: tuple[str, ...]
    rounds: tuple[int, ...]
    """That claimed some of the prompts."""
    adapters: tuple[str, ...]
    """Trained on them, directly or through a parent."""
    probes: Mapping[str, tuple[str, ...]]
    """By adapter, the digests of the probes to take out of its fingerprint."""
    actor: str
    reason: str
    after: int
    """The journal's last entry when it began: an entry of this erasure can only come later."""


def read_plan(data_dir: Path) -> ErasurePlan | None:
    """The erasure that was interrupted, if there is one. Raises TaoError when it cannot be read."""
    path = data_dir / _FILE
    if not path.exists():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        value["probes"] = {name: tuple(digests) for name, digests in value["probes"].items()}
        value |= {name: tuple(value[name]) for name in ("ids", "rounds", "adapters")}
        return ErasurePlan(**value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TaoError(
            f"{path} cannot be read ({type(error).__name__}): an erasure was interrupted and its plan is lost; "
            "delete the file and forget the same prompts again"
        ) from None


def write_plan(data_dir: Path, plan: ErasurePlan) -> None:
    atomic_write_json(data_dir / _FILE, asdict(plan))


def remove_plan(data_dir: Path) -> None:
    (data_dir / _FILE).unlink(missing_ok=True)
    fsync_directory(data_dir)
