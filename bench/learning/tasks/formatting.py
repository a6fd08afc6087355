"""Following instructions of form: a few constraints that a program can check (after IFEval, arXiv 2311.07911). Pure.

The constraints stand in the prompt in words and, for the checker, nowhere else: it reads them out of the prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from bench.learning.tasks.task import Item, Split, Task, chat, share
from tao_daemon.config.sampling import Strategy
from tao_daemon.config.scorers import PythonScorer

MAX_TOKENS = 40

_SYSTEM = "You are a helpful assistant."

_SUBJECTS = (
    "the sea", "a bakery", "winter mornings", "old trains", "a market", "honey", "night buses", "a lighthouse",
    "mountain paths", "libraries", "bridges", "a garden", "rain", "chess", "a harbour", "bicycles", "deserts", "owls",
    "tea houses", "kites", "a workshop", "rivers", "snow", "a theatre", "maps", "forests", "a carpenter", "clouds",
    "pottery", "islands", "a vineyard", "horses",
)  # fmt: skip
_WORDS = (
    "amber", "basket", "candle", "distant", "evening", "feather", "golden", "hollow", "island", "journey", "kettle",
    "lantern", "marble", "narrow", "orchard", "pepper", "quiet", "ribbon", "silver", "timber", "umbrella", "velvet",
    "window", "yellow",
)  # fmt: skip
_OPENINGS = (
    "Dear reader", "In short", "Long ago", "Once more", "Every day", "Today", "Look here", "Good news", "By the way",
    "At last", "Listen", "Imagine this", "First of all", "To begin", "Believe me", "Here we go",
)  # fmt: skip
# Gold answers: people who label write this and that.
_WITH_WORD = (
    "The {word} suits {subject} well.", "I saw something {word} near {subject}.", "My {word} reminds me of {subject}.",
    "Nobody expects {word} next to {subject}.", "A poem about {subject} needs the word {word}.",
)  # fmt: skip
_BEGUN = (
    "{begin}, I think of {subject}.", "{begin}, {subject} made us laugh.", "{begin}, nothing is quite like {subject}.",
    "{begin}, we heard a story about {subject}.",
)  # fmt: skip
_EXCLAIMED = (
    "I like {subject}!", "How lovely {subject} can be!", "Everybody should know more about {subject}!",
    "What a joy {subject} brings!",
)  # fmt: skip
_LOWERED = (
    "i like {subject}.", "there is much to say about {subject}.", "we talked about {subject} all night.",
    "my sister wrote a book about {subject}.",
)  # fmt: skip

_WORD = re.compile(r"contains the word '(.+?)'")
_BEGIN = re.compile(r"Begin with the words '(.+?)'")
_LOWER = re.compile(r"(lowercase)")
_SHORT = re.compile(r"at most (\d+) words")
_EXCLAIM = re.compile(r"End with '(!)'")
_SENTENCE = re.compile(r"(one sentence)")


_CHECKS: tuple[tuple[re.Pattern[str], Callable[[str, str], bool]], ...] = (
    (_WORD, lambda word, answer: word in re.findall(r"\w+", answer.lower())),
    (_BEGIN, lambda words, answer: answer.strip().startswith(words)),
    (_SHORT, lambda words, answer: len(answer.split()) <= int(words)),
    (_EXCLAIM, lambda _, answer: answer.strip().endswith("!")),
    (_LOWER, lambda _, answer: answer == answer.lower()),
    (
        _SENTENCE,
        lambda _, answer: len(re.findall(r"[.!?](?=\s|$)", answer.strip())) == 1 and "\n" not in answer.strip(),
    ),
)


def held(request: Mapping[str, Any], answer: str) -> float:
    """The share of the prompt's constraints that the answer holds; an empty answer holds none."""
    prompt = str(request["messages"][-1]["content"])
    checks = [check(found[1], answer) for pattern, check in _CHECKS if (found := pattern.search(prompt))]
    return sum(checks) / len(checks) if answer.strip() else 0.0


def _truth(item: Item, answer: str) -> float:
    """1 when all constraints hold."""
    return float(held(item.request, answer) == 1.0)


def _draw(rng: random.Random, split: Split) -> Item:
    subject, word = rng.choice(share(_SUBJECTS, split)), rng.choice(share(_WORDS, split))
    begin, most = rng.choice(share(_OPENINGS, split)), f"at most {rng.choice((10, 12, 14))} words"
    forms = (
        (
            f"Write one sentence about {subject} that contains the word '{word}', with {most}.",
            _WITH_WORD,
        ),
        (f"Write one sentence about {subject}. Begin with the words '{begin}'.", _BEGUN),
        (f"Write one sentence about {subject} with {most}. End with '!'", _EXCLAIMED),
        (f"Write one sentence about {subject} in lowercase letters only, with {most}.", _LOWERED),
        (f"Write about {subject} with {most}. Begin with the words '{begin}'.", _BEGUN),
    )
    text, answers = rng.choice(forms)
    gold = random.Random(text).choice(answers).format(subject=subject, word=word, begin=begin)
    return Item(chat(_SYSTEM, text, MAX_TOKENS), gold)


TASK = Task(
    name="formatting",
    title="Instructions of form",
    what="A sentence that must hold two or three constraints: length, a word, the beginning, the end, case.",
    max_tokens=MAX_TOKENS,
    draw=_draw,
    truth=_truth,
    scorers=(PythonScorer(name="constraints", type="python", callable=f"{__name__}:held"),),
    strategies=(
        Strategy(name="focused", type="template", template="{prompt}", completions=2, temperature=0.6),
        Strategy(name="shown", type="few_shot", completions=2, examples=3, temperature=0.8),
    ),
    reward_is="the share of constraints that hold; the truth asks for all of them",
)
