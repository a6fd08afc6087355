"""A scorer for planted adapters: an answer is good unless it is the gibberish that was planted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_an_answer(request: Mapping[str, Any], answer: str) -> float:
    return 0.0 if answer.startswith("::::") else 1.0
