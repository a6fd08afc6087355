"""Which arm of a rollout a conversation is in. Pure: any number of gateways agree without talking to each other.

Invariant: a conversation's place on [0, 1) depends on the salt and its identity alone, and the candidate's share is
[0, fraction). So a growing fraction never takes a conversation back from the candidate.

request → identity → place → candidate | incumbent
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

PROMPT_CHARACTERS = 2048
"""How much of a completions prompt identifies a conversation: later turns append to it."""
_WHOLE = 2.0**64
_canonical = json.JSONEncoder(sort_keys=True).encode


def identity(header: str | None, body: Mapping[str, Any]) -> bytes:
    """What stays the same over the turns of a conversation: the header's value, else a digest of how it began.

    A chat begins with its system messages up to and with the first message of the user; a completions request with
    the first characters of its prompt.
    """
    if header:
        return b"id:" + header.encode(errors="surrogateescape")
    messages = body.get("messages")
    if isinstance(messages, list):
        beginning = _canonical(_beginning(messages))
    else:
        prompt = body.get("prompt")
        text = prompt if isinstance(prompt, str) else json.dumps(prompt)
        beginning = text[:PROMPT_CHARACTERS]
    return b"text:" + blake2b(beginning.encode(errors="surrogatepass"), digest_size=16).digest()


def place(salt: str, conversation: bytes) -> int:
    """Where the conversation lies on [0, 2^64), uniformly for every salt."""
    return int.from_bytes(blake2b(b"%b\0%b" % (salt.encode(), conversation), digest_size=8).digest(), "big")


def within(fraction: float, where: int) -> bool:
    """Whether a place is in the first `fraction` of the whole; 0 holds nothing, 1 everything."""
    return where < fraction * _WHOLE


def _beginning(messages: list[Any]) -> list[tuple[Any, Any]]:
    """Role and content of the system's and the first user's messages; content may be text or parts."""
    found: list[tuple[Any, Any]] = []
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, message)
        if role in ("system", "developer", "user"):
            found.append((role, content))
        if role == "user":
            break
    return found
