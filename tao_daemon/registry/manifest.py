"""`manifest.json`: what an adapter is, in files and lineage, and the name that follows from it. Pure.

The digest covers every file, the rank and the lineage: none of them changes unnoticed under the same name. What an
erasure takes out of a file is noted beside that digest and nowhere in it, so that the adapter keeps its name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tao_daemon.domain.adapter import Lineage, OffsetRange

FORMAT = 1
_REDACTABLE = frozenset({"fingerprint.json"})
"""The only file with tokens of prompts; weights and their config are what the name says, always."""
_OMITTED_WHEN_EMPTY = frozenset({"example_ids", "carried_from"})
_NAME = re.compile(r"r\d{6,}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says. `files` maps file name to SHA-256 at publication, without the manifest itself."""

    created_at: float
    rank: int
    lineage: Lineage
    files: Mapping[str, str]
    redacted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """File name to the SHA-256 that it may have as well, each since an erasure took something out of it."""

    def accepts(self, name: str, digest: str) -> bool:
        """Whether a file with that SHA-256 is the adapter's."""
        return digest == self.files.get(name) or digest in self.redacted.get(name, ())

    @property
    def digest(self) -> str:
        """SHA-256 over everything but the date: the same artefact published again is the same adapter."""
        content = {"files": dict(self.files), "lineage": _lineage(self.lineage), "rank": self.rank}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The serving name, such as r000007-ab12cd34ef56: round, then the digest's first 12 digits."""
        return f"r{self.lineage.round:06d}-{self.digest[:12]}"


def is_adapter_name(name: str) -> bool:
    """Whether a name can be an adapter's. What is not never becomes part of a path."""
    return _NAME.fullmatch(name) is not None


def _lineage(lineage: Lineage) -> dict[str, Any]:
    """Adapters from before there were all of these fields keep their digest."""
    return {name: value for name, value in asdict(lineage).items() if value or name not in _OMITTED_WHEN_EMPTY}


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    redacted = {name: list(digests) for name, digests in sorted(manifest.redacted.items())}
    return {
        "format": FORMAT,
        "name": manifest.name,
        "digest": manifest.digest,
        "created_at": manifest.created_at,
        "rank": manifest.rank,
        "lineage": _lineage(manifest.lineage),
        "files": dict(sorted(manifest.files.items())),
        **({"redacted": redacted} if redacted else {}),
    }


def manifest_from_json(value: Any) -> Manifest:
    """Read a manifest and check that it is consistent in itself. Raises ValueError."""
    try:
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r} is not {FORMAT}; a newer tao-daemon wrote it")
        lineage = dict(value["lineage"])
        lineage |= {key: tuple(map(str, lineage[key])) for key in ("prompt_ids", "scorers")}
        lineage["example_ids"] = tuple(map(str, lineage.get("example_ids", ())))
        lineage["carried_from"] = tuple(map(int, lineage.get("carried_from", ())))
        lineage["offsets"] = tuple(
            OffsetRange(str(each["topic"]), int(each["partition"]), int(each["first"]), int(each["last"]))
            for each in lineage["offsets"]
        )
        files = {str(name): str(digest) for name, digest in value["files"].items()}
        redacted = {str(name): tuple(map(str, digests)) for name, digests in value.get("redacted", {}).items()}
        if strange := redacted.keys() - _REDACTABLE:
            raise ValueError(f"{strange.pop()!r} cannot have been redacted; only {', '.join(_REDACTABLE)} can")
        manifest = Manifest(float(value["created_at"]), int(value["rank"]), Lineage(**lineage), files, redacted)
        if (value["name"], value["digest"]) != (manifest.name, manifest.digest):
            raise ValueError("its digest does not match its content")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a manifest ({type(error).__name__}: {error})") from None
    return manifest
