"""`manifest.json`: what an adapter is, in files and lineage, and the name that follows from it. Pure.

The digest covers every file, the rank and the lineage: none of them changes unnoticed under the same name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tao_daemon.domain.adapter import Lineage, OffsetRange

FORMAT = 1
_NAME = re.compile(r"r\d{6,}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says. `files` maps file name to SHA-256, without the manifest itself."""

    created_at: float
    rank: int
    lineage: Lineage
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 over everything but the date: the same artefact published again is the same adapter."""
        content = {"files": dict(self.files), "lineage": asdict(self.lineage), "rank": self.rank}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The serving name, such as r000007-ab12cd34ef56: round, then the digest's first 12 digits."""
        return f"r{self.lineage.round:06d}-{self.digest[:12]}"


def is_adapter_name(name: str) -> bool:
    """Whether a name can be an adapter's. What is not never becomes part of a path."""
    return _NAME.fullmatch(name) is not None


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": manifest.name,
        "digest": manifest.digest,
        "created_at": manifest.created_at,
        "rank": manifest.rank,
        "lineage": asdict(manifest.lineage),
        "files": dict(sorted(manifest.files.items())),
    }


def manifest_from_json(value: Any) -> Manifest:
    """Read a manifest and check that it is consistent in itself. Raises ValueError."""
    try:
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r} is not {FORMAT}; a newer tao-daemon wrote it")
        lineage = dict(value["lineage"])
        lineage |= {key: tuple(map(str, lineage[key])) for key in ("prompt_ids", "scorers")}
        lineage["offsets"] = tuple(
            OffsetRange(str(each["topic"]), int(each["partition"]), int(each["first"]), int(each["last"]))
            for each in lineage["offsets"]
        )
        files = {str(name): str(digest) for name, digest in value["files"].items()}
        manifest = Manifest(float(value["created_at"]), int(value["rank"]), Lineage(**lineage), files)
        if (value["name"], value["digest"]) != (manifest.name, manifest.digest):
            raise ValueError("its digest does not match its content")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a manifest ({type(error).__name__}: {error})") from None
    return manifest
