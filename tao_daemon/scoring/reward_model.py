"""A reward model scores each completion by itself: behind vLLM's pooling or score API, or in a process of our own.

Implements `Grader`. The raw score s becomes 1 / (1 + exp(-(s - center) / scale)); one that is not finite is a
failure.

prompt and texts → raw scores, from a server or a child process → sigmoid
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tao_daemon.clients.scoring_server import REFUSALS, Exchange, ScoringServer, Told
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import Emit, ScorerAsked
from tao_daemon.scoring.judging import shown_request
from tao_daemon.scoring.reward_process import RewardProcess
from tao_daemon.scoring.verifier import NO_ANSWER, Failure, Score

_log = logging.getLogger(__name__)


class RewardSource(Protocol):
    """Where raw scores come from."""

    async def raw(self, prompt: Prompt, texts: Sequence[str], told: Told) -> Sequence[float] | Failure:
        """One raw score per text, or why there are none. Every request to the model is told."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """Maps raw scores into [0, 1]."""

    center: float
    scale: float

    def __call__(self, raw: float) -> Score:
        if not math.isfinite(raw):
            return Failure.OUT_OF_RANGE
        # tanh neither overflows nor loses the tails: 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2.
        return (1.0 + math.tanh((raw - self.center) / self.scale / 2.0)) / 2.0


class RewardModel:
    """Implements `Grader`."""

    is_free = False
    is_absolute = True

    def __init__(self, name: str, source: RewardSource, sigmoid: Sigmoid, emit: Emit) -> None:
        self._name = name
        self._source = source
        self._sigmoid = sigmoid
        self._emit = emit
        self._unanswered = 0

    @property
    def unanswered(self) -> int:
        return self._unanswered

    def applies(self, prompt: Prompt) -> bool:
        return True

    async def grade(self, prompt: Prompt, texts: Sequence[str]) -> list[Score]:
        if not texts:
            return []
        raw = await self._source.raw(prompt, texts, self._tell)
        self._unanswered = self._unanswered + 1 if isinstance(raw, Failure) and raw in NO_ANSWER else 0
        if isinstance(raw, Failure):
            return [raw] * len(texts)
        return [self._sigmoid(score) for score in raw]

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> list[Score] | None:
        return await self.grade(prompt, texts)

    async def close(self) -> None:
        await self._source.close()

    def _tell(self, exchange: Exchange) -> None:
        outcome = "failed" if exchange.failed else "ok"
        self._emit(
            ScorerAsked(
                self._name, outcome, exchange.seconds, exchange.prompt_tokens, exchange.completion_tokens, cost=0.0
            )
        )


class RewardServer:
    """Implements `RewardSource` over a vLLM. A chat goes to /pooling through the model's own chat template."""

    def __init__(
        self,
        server: ScoringServer,
        *,
        model: str,
        api: Literal["pooling", "score"],
        timeout_seconds: float,
        concurrent_requests: int,
    ) -> None:
        """`timeout_seconds`: deadline per answer; a request with several has as many."""
        self._server = server
        self._model = model
        self._api = api
        self._seconds = timeout_seconds
        self._turns = asyncio.Semaphore(concurrent_requests)

    async def raw(self, prompt: Prompt, texts: Sequence[str], told: Told) -> Sequence[float] | Failure:
        try:
            found = await self._asked(prompt, texts, told)
        except UpstreamTimeout:
            return Failure.TIMEOUT
        except UpstreamError as error:
            _log.warning("reward model not asked", extra={"error": str(error)})
            return Failure.ERROR if error.status in REFUSALS else Failure.UNAVAILABLE
        return found if len(found) == len(texts) else Failure.UNREADABLE

    async def close(self) -> None:
        """The session is the caller's."""

    async def _asked(self, prompt: Prompt, texts: Sequence[str], told: Told) -> Sequence[float]:
        # vLLM would apply a sigmoid of its own to a classifier's output.
        body = {"model": self._model, "use_activation": False}
        seconds = self._seconds * len(texts)
        if self._api == "score":
            pairs = {"text_1": shown_request(prompt.request), "text_2": list(texts)}
            async with self._turns:
                return await self._server.score(body | pairs, seconds, told)
        if not prompt.is_chat:
            inputs = [shown_request(prompt.request) + text for text in texts]
            async with self._turns:
                return await self._server.pooling(body | {"input": inputs}, seconds, told)
        # Of a chat, the pooling API takes one at a time.
        asked = [self._chat(body, prompt, text, told) for text in texts]
        found: list[float] = []
        for result in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found

    async def _chat(self, body: dict[str, Any], prompt: Prompt, text: str, told: Told) -> float:
        messages = [*prompt.request["messages"], {"role": "assistant", "content": text}]
        async with self._turns:
            found = await self._server.pooling(body | {"messages": messages}, self._seconds, told)
        if len(found) != 1:
            raise UpstreamError("the reward model's server gave more than one output for one chat", 200)
        return found[0]


class LocalReward:
    """Implements `RewardSource` over a child process."""

    def __init__(self, process: RewardProcess, *, timeout_seconds: float) -> None:
        """`timeout_seconds`: deadline per answer."""
        self._process = process
        self._seconds = timeout_seconds

    async def raw(self, prompt: Prompt, texts: Sequence[str], told: Told) -> Sequence[float] | Failure:
        messages = list(prompt.request["messages"]) if prompt.is_chat else None
        request = {"messages": messages, "request": shown_request(prompt.request), "answers": list(texts)}
        started = time.monotonic()
        found = await self._process.ask(request, seconds=self._seconds * len(texts))
        failed = isinstance(found, Failure)
        told(Exchange(time.monotonic() - started, failed, 0 if isinstance(found, Failure) else found.tokens))
        return found if isinstance(found, Failure) else found.values

    async def close(self) -> None:
        await self._process.close()


def check_classifier(folder: Path) -> None:
    """Raises ValueError for a folder that is no sequence classifier with one output, in safetensors."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"cannot read {folder / 'config.json'}: {type(error).__name__}; set url, or a folder"
        ) from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'} is no JSON object; is it a model's?")
    kinds, labels = config.get("architectures"), config.get("id2label")
    kind = kinds[0] if isinstance(kinds, list) and kinds else ""
    if not str(kind).endswith("ForSequenceClassification"):
        raise ValueError(f"{folder} holds {kind or 'no known architecture'}, not a sequence classifier")
    outputs = len(labels) if isinstance(labels, dict) and labels else 2
    if outputs != 1:
        raise ValueError(f"{folder} has {outputs} outputs; a reward model has one (num_labels = 1)")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} has no *.safetensors file; convert the weights")
