"""Grading a group leaves the event loop free."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

from tao_daemon.daemon.grading import grade
from tao_daemon.domain.completion import Completion, CompletionGroup
from tao_daemon.domain.prompt import Prompt, Source


class SlowToSay:
    """A scorer that takes a schema to compile before it knows whether it applies."""

    def __init__(self) -> None:
        self.asked_on: list[threading.Thread] = []

    async def score(self, prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        return [float(n) for n, _ in enumerate(texts)]

    def names(self, prompt: Prompt) -> tuple[str, ...]:
        self.asked_on.append(threading.current_thread())
        return ("slow",)


async def test_who_scored_is_found_out_beside_the_event_loop() -> None:
    completions = tuple(Completion(n, "plain", "t", (5,), (-0.5,), "stop") for n in range(2))
    scorer = SlowToSay()
    prompt = Prompt("p", {"prompt": "x"}, Source("t", 0, 0), received_at=0.0)
    graded = await grade(cast(Any, scorer), prompt, CompletionGroup("p", (1, 2), completions), 16)
    assert graded is not None
    assert graded.scorers == ("slow",)
    assert scorer.asked_on
    assert threading.current_thread() not in scorer.asked_on
