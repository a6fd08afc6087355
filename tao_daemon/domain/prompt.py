"""A prompt: one production input, as received, and where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Split(StrEnum):
    """What a prompt may be used for. Assigned once, at ingest, per near-duplicate cluster."""

    TRAIN = "train"
    HELD_OUT = "held_out"
    EXCLUDED = "excluded"
    """The prompt resembles clusters of both splits, so it belongs to neither."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a prompt came from; unique, so that the same record is never buffered twice.

    For Kafka: topic, partition, offset. For an import: `import:<file digest>`, 0, line number.
    """

    topic: str
    partition: int
    offset: int

    @property
    def prompt_id(self) -> str:
        """A stable identifier of 32 hexadecimal digits."""
        raw = f"{self.topic}\x00{self.partition}\x00{self.offset}".encode()
        return hashlib.blake2b(raw, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One decoded request. `request` is an OpenAI chat or completions body, as the client sent it."""

    id: str
    request: Mapping[str, Any]
    source: Source
    received_at: float
    """Unix seconds: the record's own timestamp."""
    tenant: str = ""
    conversation: str = ""
    subject: str = ""

    @property
    def is_chat(self) -> bool:
        return "messages" in self.request

    @property
    def model(self) -> str:
        return str(self.request.get("model") or "")

    @property
    def system_digest(self) -> str:
        """SHA-256 of the system messages, or "" without any. Identifies the task of a prompt."""
        parts = [m.get("content") for m in self._messages() if m.get("role") in ("system", "developer")]
        return hashlib.sha256(_text(parts).encode()).hexdigest() if parts else ""

    @property
    def user_text(self) -> str:
        """What the user wrote, without the system messages: the part that tells prompts apart."""
        if not self.is_chat:
            return _text(self.request.get("prompt"))
        return _text([m.get("content") for m in self._messages() if m.get("role") == "user"])

    def _messages(self) -> list[Mapping[str, Any]]:
        return list(self.request.get("messages", ()))


def _text(content: Any) -> str:
    """Flatten OpenAI content (a string, or parts) into text; what is not text counts by its JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_text(part) for part in content)
    if isinstance(content, Mapping) and isinstance(content.get("text"), str):
        return str(content["text"])
    return json.dumps(content, sort_keys=True, ensure_ascii=False)
