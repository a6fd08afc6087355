"""What a gateway reads in an answer, and the one thing it changes: the model's name. Pure.

The patterns cannot be part of generated text: inside a JSON string every quote is escaped, and every end of line.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

MAX_LINE_BYTES = 1_048_576
"""A longer line passes as it is, so that memory stays bounded."""
_CUT_OFF = re.compile(rb'"finish_reason"\s*:\s*"length"')
_EVENT = re.compile(rb"^data:(?! ?\[DONE\])", re.MULTILINE)
_FAILED = re.compile(rb'^data: ?\{\s*"error"\s*:', re.MULTILINE)
_USAGE = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')


class AnswerReader:
    """Puts the public name in place of the server's, and notes how the answer ended. For one answer."""

    __slots__ = ("_events", "_pattern", "_public", "_rest", "_tokens", "failed", "truncated")

    def __init__(self, model: str, public_model: str) -> None:
        self._pattern, self._public = _renaming(model, public_model)
        self._rest = b""
        self._events = 0
        self._tokens: int | None = None
        self.truncated = False
        """Whether a choice ended with finish_reason "length"."""
        self.failed = False
        """Whether a stream told of an error: its status was sent long before."""

    @property
    def tokens(self) -> int:
        """Completion tokens by the answer's `usage`; without it, the events of a stream."""
        return self._events if self._tokens is None else self._tokens

    def whole(self, body: bytes) -> bytes:
        """An answer, or some lines of one, that is complete."""
        if b'"length"' in body and _CUT_OFF.search(body):
            self.truncated = True
        if b'"completion_tokens"' in body:
            for found in _USAGE.finditer(body):
                self._tokens = int(found[1])
        return self._pattern.sub(self._public, body)

    def feed(self, chunk: bytes) -> bytes:
        """The lines of a stream that are complete now; keeps the rest, which no client could use yet."""
        data = self._rest + chunk if self._rest else chunk
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) <= MAX_LINE_BYTES:
                self._rest = data
                return b""
            end = len(data)
        lines, self._rest = data[:end], data[end:]
        self._events += len(_EVENT.findall(lines))
        if b'"error"' in lines and _FAILED.search(lines):
            self.failed = True
        return self.whole(lines)

    def flush(self) -> bytes:
        """What is left at the end of the stream."""
        rest, self._rest = self._rest, b""
        return self.whole(rest) if rest else b""


@lru_cache(maxsize=64)
def _renaming(model: str, public_model: str) -> tuple[re.Pattern[bytes], bytes]:
    """The member that names the server's model, and what replaces it (as a template: no backslash may stay)."""
    name = json.dumps(model, ensure_ascii=False).encode()
    public = b'"model":' + json.dumps(public_model, ensure_ascii=False).encode()
    return re.compile(rb'"model"\s*:\s*' + re.escape(name)), public.replace(b"\\", rb"\\")
