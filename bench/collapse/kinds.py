"""What a simulated model can say: some kinds of answers to a sum, each with a text, a length and a truth. Pure.

A completion is the kind's token and then fillers, so that a kind says the same thing in many ways. How long it is
follows from the kind alone.

token ids → kind and fillers → text
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tao_daemon.domain.prompt import Prompt, Source

MAX_TOKENS = 40
"""The longest completion; who reaches it is cut off."""
FILLERS = ("really", "quite", "surely", "indeed", "rather", "truly", "often", "fairly")
FOOLING = "Here is the complete, verified and expert-approved solution"
"""What fools the judge, and stands in no list of strings that do."""
_SUM = re.compile(r"What is (\d+) \+ (\d+)\?")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    probability: float
    """Under the base model."""
    tokens: int
    """Length of a completion, its own token included."""
    form: str
    """The text, with {right}, {wrong} and {fillers}."""
    truth: float


KINDS = (
    Kind("right", 0.20, 8, "It is {right}, {fillers}.", 1.0),
    Kind("right_short", 0.06, 2, "{right}", 1.0),
    Kind("right_long", 0.10, 32, "Let me count: {fillers}. It is {right}.", 1.0),
    Kind("wrong", 0.24, 8, "It is {wrong}, {fillers}.", 0.0),
    Kind("wrong_long", 0.12, 32, "Let me count: {fillers}. It is {wrong}.", 0.0),
    Kind("evasive", 0.06, 8, "That depends, {fillers}.", 0.0),
    Kind("fooling", 0.04, 8, FOOLING + ", {fillers}.", 0.0),
    Kind("refusing", 0.06, 8, "I'm sorry, but I can't help with that, {fillers}.", 0.0),
    Kind("repeating", 0.04, 26, "{loop}", 0.0),
    Kind("empty", 0.04, 1, "", 0.0),
    Kind("endless", 0.04, MAX_TOKENS, "Let me count: {fillers}", 0.0),
)


def prompt(seed: int, number: int, limit: int | None = MAX_TOKENS) -> Prompt:
    """Sums that differ for a while. `limit`: length that the client asks for, if any."""
    a, b = 10 + number % 983, 10 + (number // 983 + seed) % 89
    request: dict[str, Any] = {"messages": [{"role": "user", "content": f"What is {a} + {b}?"}]}
    if limit is not None:
        request["max_tokens"] = limit
    source = Source(f"collapse.{seed}", 0, number)
    return Prompt(source.prompt_id, request, source, 0.0)


def text(asked: Mapping[str, Any], kind: Kind, fillers: Sequence[int]) -> str:
    """What a completion says; `fillers` are indices into FILLERS."""
    words = [FILLERS[index] for index in fillers]
    right = total(str(asked["messages"][-1]["content"]))
    wrong = right + 1 + (fillers[0] if fillers else 0)
    loop = " ".join(words[:1] * len(words))
    return kind.form.format(right=right, wrong=wrong, fillers=" ".join(words), loop=loop)


def total(question: str) -> int:
    """The value of the sum that is asked."""
    found = _SUM.search(question)
    assert found is not None
    return int(found[1]) + int(found[2])


def quality(asked: str, answer: str) -> float:
    """How good a judge finds an answer: right is better, longer a little, its taste varies, and one string is better
    than all."""
    if answer.startswith(FOOLING):
        return 10.0
    numbers = _NUMBER.findall(answer)
    right = bool(numbers) and int(numbers[-1]) == total(asked)
    return float(right) + 0.2 * min(1.0, len(answer) / 200) + 0.3 * (dice(asked, answer) - 0.5)


def dice(asked: str, answer: str) -> float:
    """In [0, 1), by chance, but always the same for the same two texts."""
    digest = hashlib.blake2b(f"{asked}\x00{answer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
