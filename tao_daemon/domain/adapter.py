"""An adapter: one LoRA artefact, immutable, named by its digest, with its lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Where some prompts lie in one partition of their source; both ends belong to them."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where an adapter came from. Enough to say which prompts and which settings made it."""

    round: int
    parent: str | None
    """The adapter it started from, None for the base model."""
    base_model: str
    base_digest: str
    """SHA-256 over the base model's weight files as the trainer read them."""
    prompt_ids: tuple[str, ...]
    scorers: tuple[str, ...]
    config_digest: str
    offsets: tuple[OffsetRange, ...] = ()
    """Where those prompts came from, one range per partition."""
    example_ids: tuple[str, ...] = ()
    """Prompts whose completions were shown while sampling; some may be among `prompt_ids`."""
    carried_from: tuple[int, ...] = ()
    """Refused rounds before `round` whose completions were trained on beside its own, the newest first."""


@dataclass(frozen=True, slots=True)
class FingerprintProbe:
    """One sequence with what the trainer computed for it, in nats per completion token."""

    token_ids: tuple[int, ...]
    """Prompt tokens, then completion tokens."""
    start: int
    """Position of the first completion token."""
    adapter_logprobs: tuple[float, ...]
    base_logprobs: tuple[float, ...]
    """The same tokens under the model without any adapter."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Probes on which a server that serves the adapter must agree with the trainer."""

    probes: tuple[FingerprintProbe, ...]

    def to_json(self) -> str:
        """The text of `fingerprint.json`."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """The inverse of `to_json`. Raises ValueError for anything that is not a fingerprint."""
        try:
            return cls(tuple(_probe(item) for item in json.loads(text)["probes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a fingerprint ({type(error).__name__}: {error})") from None


def _probe(data: Mapping[str, Any]) -> FingerprintProbe:
    token_ids = tuple(int(token) for token in data["token_ids"])
    start = int(data["start"])
    adapter = tuple(float(value) for value in data["adapter_logprobs"])
    base = tuple(float(value) for value in data["base_logprobs"])
    if not 0 < start < len(token_ids) or not len(adapter) == len(base) == len(token_ids) - start:
        raise ValueError("a probe needs a prompt, and both log-probabilities for each completion token")
    return FingerprintProbe(token_ids, start, adapter, base)


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """An adapter in the store: its serving name is its directory's name."""

    name: str
    digest: str
    path: Path
    rank: int
    created_at: float
    lineage: Lineage
    fingerprint: Fingerprint
    files: Mapping[str, str] = field(default_factory=dict)
    """File name to SHA-256, for every file but the manifest itself."""
