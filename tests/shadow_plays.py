"""What a shadow asks: versions and a judge that do as told, and live prompts."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.domain.completion import REFUSED, Answer
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt, Source


class Versions:
    """A sampler whose versions answer, refuse or fail as told; several words are what they do time after time."""

    def __init__(self, **behaviour: str) -> None:
        self.behaviour = behaviour
        self.too_long: set[str] = set()
        """Prompts that the server refuses, whoever should answer."""
        self.asked: list[tuple[str, str]] = []

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        name = model or "base"
        self.asked += [(name, prompt.id) for prompt in prompts]
        does, _, later = self.behaviour.get(name, "good").partition(" ")
        self.behaviour[name] = later or does
        if does == "down":
            raise UpstreamError("no answer")
        if does.isdigit():
            raise UpstreamError("an error", int(does))
        refused = [does == "refused" or prompt.id in self.too_long for prompt in prompts]
        return [Answer(does, 3, REFUSED if each else "stop") for each in refused]

    def sample(self, *_: object, **__: object) -> object:
        raise AssertionError("a shadow asks for answers only")


class Judge:
    """Scores an answer by its word."""

    def __init__(self) -> None:
        self.is_down = self.is_untrusted = False

    def judges(self, prompt: Prompt) -> bool:
        return True

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        if self.is_down:
            raise UpstreamError("the judge is down")
        scores = {"good": 1.0, "poor": 0.25, "unscorable": None, "nan": float("nan")}
        return [None if self.is_untrusted else scores[text] for text in texts]


def fill(store: MemoryStore, count: int) -> list[str]:
    """Live prompts that have nothing to do with each other, the oldest first; their identifiers."""
    texts = ["".join(random.Random(n).choices(string.ascii_lowercase, k=60)) for n in range(count)]
    prompts = tuple(
        Prompt(s.prompt_id, {"messages": [{"role": "user", "content": text}]}, s, float(n))
        for n, text in enumerate(texts)
        for s in [Source("t", 0, n)]
    )
    store.submit(Ingest(prompts, {})).result()
    return [prompt.id for prompt in prompts]
