"""A scorer that even a random model can learn: about half its tokens begin with the space that ends an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def says_nothing(request: Mapping[str, Any], answer: str) -> float:
    return float(not answer)


def says_anything(request: Mapping[str, Any], answer: str) -> float:
    """Every answer is as good as every other."""
    return 1.0
