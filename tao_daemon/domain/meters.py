"""What a set of sampled answers is like: length, diversity, entropy, and the signs of a model that collapses. Pure.

No meter may depend on how many completions a prompt has: a budget that follows rewards must not look like a change of
the model. So every prompt weighs the same, and measures of diversity compare its completions in pairs; the 95th
percentile of lengths alone is taken over all completions together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from tao_daemon.domain.completion import CUT_OFF, Answer, Completion, CompletionGroup

# Scripts without spaces count by the character, everything else by the word or the sign.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")
REFUSAL_OPENINGS = (
    "i'm sorry, but i can", "i'm sorry but i can", "i am sorry, but i can", "sorry, but i can", "sorry, i can't",
    "i'm sorry, i can't", "i apologize, but i can", "i can't help", "i cannot help", "i can't assist",
    "i cannot assist", "i can't provide", "i cannot provide", "i can't fulfill", "i cannot fulfill", "i can't comply",
    "i cannot comply", "i'm unable to", "i am unable to", "i'm not able to", "i am not able to",
    "i won't be able to", "i must decline", "i have to decline", "as an ai",
)  # fmt: skip
"""How English refusals begin, in lower case, with straight apostrophes. Other languages are not recognised."""
_LONGEST_LOOP = 32
_LOOPS, _LOOP_WORDS, _LOOP_CHARACTERS = 4, 16, 40


def measure(groups: Iterable[CompletionGroup]) -> dict[str, float]:
    """Meters of the plain completions, by name; one that there is nothing to measure for is absent.

    Each is the mean over prompts of the mean over a prompt's completions, but tokens_p95: that of all completions.

    entropy        nats per token: of each completion, the mean of −log-probability at temperature 1
    tokens_mean, tokens_p95    length of a completion in tokens; the 95th percentile is a length that occurred
    distinct_1, distinct_2     of the words (pairs of words) of two completions of a prompt, the share that is different
                   ones (Li et al. 2016, arXiv 1510.03055, over pairs): 0.5 when both say the same without repetition
    distinct_texts probability that two completions of a prompt differ in text (1 − Simpson's index)
    truncated, empty, refusals, repeated   shares of the completions: cut off at the length limit; blank; `is_refusal`;
                   `is_repetitive`
    """
    plain = [tuple(c for c in group.completions if c.is_plain and not c.extracted) for group in groups]
    meters = _of_answers([[_as_answer(completion) for completion in group] for group in plain if group])
    surprises = [[-fmean(completion.logprobs) for completion in group if completion.logprobs] for group in plain]
    if any(surprises):
        meters["entropy"] = fmean(fmean(each) for each in surprises if each)
    texts = [[completion.text for completion in group] for group in plain if len(group) > 1]
    if texts:
        meters["distinct_texts"] = fmean(map(_distinct_texts, texts))
        for size in (1, 2):
            shares = [share for group in texts if (share := _distinct(group, size)) is not None]
            if shares:
                meters[f"distinct_{size}"] = fmean(shares)
    return meters


def measure_answers(answers: Sequence[Answer]) -> dict[str, float]:
    """The meters that single answers have, one per prompt: tokens_mean, tokens_p95, truncated, empty, refusals,
    repeated."""
    return _of_answers([[answer] for answer in answers])


def is_refusal(text: str) -> bool:
    """Whether an answer opens like an English refusal (REFUSAL_OPENINGS)."""
    return text.lstrip(" \t\n\"'*#>-").replace("\u2019", "'").lower().startswith(REFUSAL_OPENINGS)


def is_repetitive(text: str) -> bool:
    """Whether an answer ends in a loop: up to 32 words that come at least 4 times in a row, over at least 16 words; or
    as many characters, over at least 40."""
    return _loops(_WORDS.findall(text), _LOOP_WORDS) or _loops(text.rstrip(), _LOOP_CHARACTERS)


def _of_answers(prompts: Sequence[Sequence[Answer]]) -> dict[str, float]:
    """`prompts`: the answers to each, one at least."""
    if not prompts:
        return {}
    lengths = sorted(answer.completion_tokens for answers in prompts for answer in answers)

    def mean(of: Callable[[Answer], float]) -> float:
        return fmean(fmean(map(of, answers)) for answers in prompts)

    return {
        "tokens_mean": mean(lambda answer: answer.completion_tokens),
        "tokens_p95": float(lengths[-(-95 * len(lengths) // 100) - 1]),
        "truncated": mean(lambda answer: answer.finish_reason == CUT_OFF),
        "empty": mean(lambda answer: not answer.text.strip()),
        "refusals": mean(lambda answer: is_refusal(answer.text)),
        "repeated": mean(lambda answer: is_repetitive(answer.text)),
    }


def _as_answer(completion: Completion) -> Answer:
    return Answer(completion.text, len(completion.token_ids), completion.finish_reason)


def _distinct_texts(texts: Sequence[str]) -> float:
    same = sum(count * (count - 1) for count in Counter(texts).values())
    return 1.0 - same / (len(texts) * (len(texts) - 1))


def _distinct(texts: Sequence[str], size: int) -> float | None:
    """Mean over neighbours (the last one's is the first) of the share of different n-grams; None without any."""
    grams = [_grams(_WORDS.findall(text), size) for text in texts]
    pairs = [one + other for one, other in zip(grams, [*grams[1:], grams[0]], strict=True)]
    shares = [len(set(pair)) / len(pair) for pair in pairs if pair]
    return fmean(shares) if shares else None


def _grams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[place : place + size]) for place in range(len(words) - size + 1)]


def _loops(units: Sequence[str], least: int) -> bool:
    """Whether it ends with the same up to `_LONGEST_LOOP` units `_LOOPS` times over, `least` units in all at least."""
    for period in range(1, _LONGEST_LOOP + 1):
        length = max(_LOOPS * period, least)
        tail = units[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False
