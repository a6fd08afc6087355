"""What a setting's extractor finds in a request and in an answer. Pure.

In an answer: see `clients.extraction`. In a request, `json:/pointer` points into the request itself
(json:/metadata/expected), where null is no value; every other extractor reads the last user message, or the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tao_daemon.clients.extraction import MAX_CHARACTERS, Extract, as_text, pointer_of, timed_extractor, value_at
from tao_daemon.domain.embedded_json import NOTHING


@dataclass(frozen=True, slots=True)
class Extractor:
    """One setting, made usable by `extractor`. Safe from any thread."""

    find: Extract
    pointer: tuple[str, ...] | None

    def from_answer(self, text: str) -> str | None:
        """The value in an answer, None without one. Raises TimeoutError and nothing else."""
        return self.find(text)

    def from_request(self, request: Mapping[str, Any]) -> str | None:
        """The value in a request, None without one. Raises TimeoutError and nothing else."""
        if self.pointer is None:
            text = request_text(request)
            return None if text is None else self.find(text)
        value = value_at(request, self.pointer)
        if value is NOTHING or value is None:
            return None
        try:
            found = as_text(value).strip()
        except (ValueError, TypeError, RecursionError):
            return None
        return found if 0 < len(found) <= MAX_CHARACTERS else None


def extractor(spec: str, *, timeout_seconds: float) -> Extractor:
    """The extractor of a setting; `timeout_seconds` bounds each use. Raises ValueError for a spec that names none."""
    return Extractor(timed_extractor(spec, timeout_seconds=timeout_seconds), pointer_of(spec))


def request_text(request: Mapping[str, Any]) -> str | None:
    """The text of the last user message (of its text parts, one a line), or the prompt; None without."""
    messages = request.get("messages")
    if isinstance(messages, list | tuple):
        asked = [m for m in messages if isinstance(m, Mapping) and m.get("role") == "user"]
        return _text(asked[-1].get("content")) if asked else None
    return _text(request.get("prompt"))


def _text(content: Any) -> str | None:
    if isinstance(content, list | tuple):
        parts = [part["text"] if isinstance(part, Mapping) and "text" in part else part for part in content]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) and content.strip() else None
