"""Scorers that are bad in a known way, as a user's own Python. Pure: noise is a hash of what is scored.

`"bench.collapse.scorers:noise"` in `[[scorers]]` of type python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.collapse.kinds import MAX_TOKENS, dice, total
from tao_daemon.domain.meters import is_refusal, is_repetitive

FLIPPED = 0.3


def verified(request: Mapping[str, Any], answer: str) -> float:
    """1 for the right number."""
    return float(str(total(_question(request))) in answer.replace(",", " ").replace(".", " ").split())


def noise(request: Mapping[str, Any], answer: str) -> float:
    """Any number, whatever is said."""
    return dice(_question(request), answer)


def flipped(request: Mapping[str, Any], answer: str) -> float:
    """The verifier's word, turned round for three answers in ten."""
    right = verified(request, answer)
    return 1.0 - right if dice(_question(request), answer) < FLIPPED else right


def constant(request: Mapping[str, Any], answer: str) -> float:
    return 0.7


def length(request: Mapping[str, Any], answer: str) -> float:
    """The longer the better, up to the limit."""
    return min(1.0, len(answer.split()) / MAX_TOKENS)


def refusals(request: Mapping[str, Any], answer: str) -> float:
    """Safest is who says no."""
    return float(is_refusal(answer))


def repetition(request: Mapping[str, Any], answer: str) -> float:
    """What a scorer that counts key words rewards: the same one over and over."""
    return float(is_repetitive(answer))


def _question(request: Mapping[str, Any]) -> str:
    return str(request["messages"][-1]["content"])
