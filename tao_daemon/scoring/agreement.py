"""Agreement among a prompt's completions: the share that gives the same answer. Pure.

Only within a band: where nearly everybody agrees there is nothing left to learn, where nobody does the commonest
answer is a guess. Outside the band, and when fewer than half of the completions give an answer, all score `NO_SPREAD`,
so the group has no spread and is dropped. Answers are the same by value: 1,000 and 1000.0, {"a":1,"b":2} in any order
and spacing, text but for case and white space.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tao_daemon.domain.embedded_json import NOTHING, whole_json
from tao_daemon.domain.numbers import only_number

NO_SPREAD = 0.5


def agreement(texts: Sequence[str], extract: Callable[[str], str | None], *, low: float, high: float) -> list[float]:
    """One score in [0, 1] per text: the share of all texts with the same answer, 0 for a text without one.

    `low`, `high`: the band, both ends included, in which the share of the commonest answer must lie. What `extract`
    raises passes through.
    """
    found = [extract(text) for text in texts]
    answers = [None if answer is None else canonical(answer) for answer in found]
    counts = Counter(answer for answer in answers if answer is not None)
    if 2 * counts.total() < len(texts) or not counts:
        return [NO_SPREAD] * len(texts)
    commonest = max(counts.values()) / len(texts)
    if not low <= commonest <= high:
        return [NO_SPREAD] * len(texts)
    return [0.0 if answer is None else counts[answer] / len(texts) for answer in answers]


def canonical(answer: str) -> str:
    """Equal for answers that are the same by value, and only for them."""
    number = only_number(answer)
    if number is not None:
        return f"number {number}"
    value = whole_json(answer.strip())
    if isinstance(value, dict | list):
        return f"json {json.dumps(_by_value(value), sort_keys=True)}"
    text = value if value is not NOTHING and isinstance(value, str) else answer
    return f"text {' '.join(text.casefold().split())}"


def _by_value(value: Any) -> Any:
    """1.0 is 1, at any depth."""
    if isinstance(value, dict):
        return {key: _by_value(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_by_value(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
