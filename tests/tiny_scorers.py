"""A scorer that a random model can learn: answers that begin with a letter of the first half of the alphabet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def early_letter(request: Mapping[str, Any], answer: str) -> float:
    return float(answer[:1].lower() in set("abcdefghijklm"))
