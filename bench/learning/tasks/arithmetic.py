"""Arithmetic: a sum or difference of two numbers in a sentence → its value. Pure.

The prompt itself determines the answer, as it does wherever a checker can compute it, so reward and truth agree.
"""

from __future__ import annotations

import random
import re

from bench.learning.tasks.task import Item, Split, Task, chat
from tao_daemon.config.sampling import Strategy
from tao_daemon.config.scorers import MathScorer

MAX_TOKENS = 40

_SYSTEM = "You are a helpful assistant."
_THINGS = ("apples", "books", "coins", "eggs", "lamps", "tickets", "stamps", "plates")
_ASKS = (
    "What is {a} {sign} {b}?",
    "A shop counts {things}: {a} {sign} {b}. What is {a} {sign} {b}?",
)


def _truth(item: Item, answer: str) -> float:
    """1 when the last number of the answer is the value."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    return float(bool(numbers) and float(numbers[-1]) == item.facts["value"])


def _draw(rng: random.Random, split: Split) -> Item:
    while True:
        a, b = rng.randint(1, 40), rng.randint(1, 20)
        sign = rng.choice("+-")
        # A sum and its mirror image are the same question.
        value = a + b if sign == "+" else a - b
        # Nor one that a number of the question answers.
        if value > 0 and value != b and (max(a, b) * 7 + min(a, b) * 3) // 2 % 4 in split.value:
            break
    text = rng.choice(_ASKS).format(a=a, b=b, sign=sign, things=rng.choice(_THINGS))
    return Item(chat(_SYSTEM, text, MAX_TOKENS), f"{a} {sign} {b} = {value}", {"value": value})


TASK = Task(
    name="arithmetic",
    title="Arithmetic",
    what="A sum or difference of two numbers.",
    max_tokens=MAX_TOKENS,
    draw=_draw,
    truth=_truth,
    scorers=(MathScorer(name="value", type="math", expected=r"regex:What is (.*)\?"),),
    strategies=(
        Strategy(
            name="equation",
            type="template",
            template="{prompt} Answer with the equation only.",
            completions=3,
            temperature=0.3,
        ),
        Strategy(name="shown", type="few_shot", completions=2, examples=3, temperature=0.6),
    ),
    reward_is="the truth: the math verifier computes the value from the prompt",
)
