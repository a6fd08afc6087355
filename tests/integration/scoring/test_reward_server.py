"""A reward model behind vLLM's pooling and score APIs: a server with the shapes that vLLM 0.32 takes and gives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.clients.scoring_server import MAX_REPLY_BYTES, ScoringServer
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import ScorerAsked, Signal
from tao_daemon.scoring.reward_model import RewardModel, RewardServer, Sigmoid
from tao_daemon.scoring.verifier import Failure

NEEDLE = "needle-90ab"
QUICK = RetryPolicy(attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.02)
CHAT = Prompt("p", {"messages": [{"role": "user", "content": "q"}]}, Source("t", 0, 0), received_at=0.0)
PLAIN = Prompt("p", {"prompt": "Once "}, Source("t", 0, 0), received_at=0.0)


@dataclass
class Vllm:
    """Scores a text by its length; every row is shaped by `row`."""

    row: Callable[[float], Any] = lambda score: [score]
    status: int = 200
    hang: bool = False
    raw_answer: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    running: int = 0
    most: int = 0

    async def pooling(self, request: web.Request) -> web.Response:
        def rows(body: dict[str, Any]) -> list[dict[str, Any]]:
            texts = [body["messages"][-1]["content"]] if "messages" in body else body["input"]
            data = [{"index": n, "object": "pooling", "data": self.row(float(len(t)))} for n, t in enumerate(texts)]
            return data[::-1]

        return await self._answer(request, rows)

    async def score(self, request: web.Request) -> web.Response:
        def rows(body: dict[str, Any]) -> list[dict[str, Any]]:
            return [{"index": n, "object": "score", "score": float(len(t))} for n, t in enumerate(body["text_2"])]

        return await self._answer(request, rows)

    async def _answer(self, request: web.Request, rows: Any) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(3600 if self.hang else 0.01)
        self.running -= 1
        if self.status != 200:
            return web.json_response({"error": {"message": str(body)}}, status=self.status)
        if self.raw_answer is not None:
            return web.Response(text=self.raw_answer)
        return web.json_response(
            {"object": "list", "data": rows(body), "usage": {"prompt_tokens": 7, "total_tokens": 7}}
        )


@asynccontextmanager
async def serving(**faults: Any) -> AsyncIterator[Vllm]:
    vllm = Vllm(**faults)
    app = web.Application()
    app.router.add_post("/pooling", vllm.pooling)
    app.router.add_post("/score", vllm.score)
    server = TestServer(app)
    await server.start_server()
    vllm.url = str(server.make_url("")).rstrip("/")
    try:
        yield vllm
    finally:
        await server.close()


def model(
    vllm: Vllm,
    session: aiohttp.ClientSession,
    signals: list[Signal],
    api: Literal["pooling", "score"] = "pooling",
    seconds: float = 5.0,
) -> RewardModel:
    server = ScoringServer(vllm.url, api_key=None, session=session, retry=QUICK)
    source = RewardServer(server, model="rm", api=api, timeout_seconds=seconds, concurrent_requests=3)
    return RewardModel("rm", source, Sigmoid(center=2.0, scale=1.0), signals.append)


TEXTS = ["a", "bb", "ccc", "dddd"]
BY_LENGTH = [pytest.approx(x, abs=1e-12) for x in (0.2689414213699951, 0.5, 0.7310585786300049, 0.8807970779778823)]


@pytest.mark.parametrize(
    "row", [lambda s: [s], lambda s: [[9.0], [s]], lambda s: [9.0, s], lambda s: [[9.0, 9.0], [9.0, s]]]
)
async def test_of_an_output_the_last_value_counts(
    session: aiohttp.ClientSession, signals: list[Signal], row: Any
) -> None:
    async with serving(row=row) as vllm:
        assert await model(vllm, session, signals).grade(CHAT, TEXTS) == BY_LENGTH
        assert all(body["use_activation"] is False and body["model"] == "rm" for body in vllm.bodies)
        assert [body["messages"][0]["content"] for body in vllm.bodies] == ["q"] * 4
        assert vllm.most <= 3
    told = [signal for signal in signals if isinstance(signal, ScorerAsked)]
    assert [(s.outcome, s.prompt_tokens, s.cost) for s in told] == [("ok", 7, 0.0)] * 4


async def test_texts_without_a_chat_go_in_one_request(session: aiohttp.ClientSession, signals: list[Signal]) -> None:
    async with serving() as vllm:
        found = await model(vllm, session, signals).grade(PLAIN, TEXTS)
        assert [float(score) for score in found] == sorted(float(score) for score in found)
        assert [body["input"] for body in vllm.bodies] == [[f"Once {text}" for text in TEXTS]]


async def test_a_cross_encoder_gets_pairs(session: aiohttp.ClientSession, signals: list[Signal]) -> None:
    async with serving() as vllm:
        grader = model(vllm, session, signals, api="score")
        assert await grader.grade(CHAT, TEXTS) == BY_LENGTH
        assert await grader.absolute(CHAT, TEXTS[:1]) == BY_LENGTH[:1]
        assert await grader.grade(CHAT, []) == []
        assert [(b["text_1"], b["text_2"]) for b in vllm.bodies] == [("[user]\nq", TEXTS), ("[user]\nq", TEXTS[:1])]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
async def test_not_a_number_is_a_failure_and_never_a_score(
    session: aiohttp.ClientSession, signals: list[Signal], value: float | None
) -> None:
    async with serving(row=lambda s: [value if s == 2 else s]) as vllm:
        found = await model(vllm, session, signals).grade(CHAT, TEXTS)
    assert found[1] is Failure.OUT_OF_RANGE
    assert [found[0], *found[2:]] == [BY_LENGTH[0], *BY_LENGTH[2:]]


LARGE = f'{{"data": [{{"index": 0, "data": [1{"0" * 400}], "score": 1{"0" * 400}}}]}}'


@pytest.mark.parametrize("api", ["pooling", "score"])
@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"status": 400}, Failure.ERROR),
        ({"status": 401}, Failure.UNAVAILABLE),
        ({"status": 500}, Failure.UNAVAILABLE),
        ({"hang": True}, Failure.TIMEOUT),
        ({"raw_answer": "[]"}, Failure.UNAVAILABLE),
        ({"raw_answer": f"not JSON {NEEDLE}"}, Failure.UNAVAILABLE),
        ({"raw_answer": "{}"}, Failure.UNAVAILABLE),
        ({"raw_answer": '{"data": [{"index": 1, "data": [1.0], "score": 1.0}]}'}, Failure.UNAVAILABLE),
        ({"raw_answer": '{"data": [{"index": 0, "data": [], "score": "x"}]}'}, Failure.UNAVAILABLE),
        ({"raw_answer": '{"data": [{"index": 1e999, "data": [1.0], "score": 1.0}]}'}, Failure.UNAVAILABLE),
        ({"raw_answer": LARGE}, Failure.UNAVAILABLE),
        ({"raw_answer": " " * (MAX_REPLY_BYTES + 1)}, Failure.UNAVAILABLE),
    ],
)
async def test_a_server_that_fails(
    session: aiohttp.ClientSession,
    signals: list[Signal],
    caplog: pytest.LogCaptureFixture,
    api: Literal["pooling", "score"],
    faults: dict[str, Any],
    expected: Failure,
) -> None:
    async with serving(**faults) as vllm:
        with caplog.at_level(logging.DEBUG):
            found = await model(vllm, session, signals, api, seconds=0.2 if "hang" in faults else 30.0).grade(
                CHAT, [NEEDLE, "b"]
            )
    assert found == [expected] * 2
    assert {s.outcome for s in signals if isinstance(s, ScorerAsked)} == {"failed"}
    assert NEEDLE not in repr([record.__dict__ for record in caplog.records])
    assert NEEDLE not in repr(signals)


async def test_fewer_scores_than_texts_are_not_guessed_at(
    session: aiohttp.ClientSession, signals: list[Signal]
) -> None:
    async with serving(raw_answer='{"data": [{"index": 0, "score": 1.0}]}') as vllm:
        assert await model(vllm, session, signals, "score").grade(CHAT, TEXTS) == [Failure.UNREADABLE] * 4


async def test_a_server_that_is_not_there(session: aiohttp.ClientSession, signals: list[Signal]) -> None:
    async with serving() as vllm:
        pass
    assert await model(vllm, session, signals).grade(CHAT, TEXTS) == [Failure.UNAVAILABLE] * 4


@pytest.mark.parametrize("counted", ["1" + "0" * 400, "1" + "0" * 12, "-1", "1e999", "NaN", '"7"'])
async def test_what_cannot_have_been_counted_is_not_believed(
    session: aiohttp.ClientSession, signals: list[Signal], counted: str
) -> None:
    answer = f'{{"data": [{{"index": 0, "score": 2.0}}], "usage": {{"prompt_tokens": {counted}}}}}'
    async with serving(raw_answer=answer) as vllm:
        assert await model(vllm, session, signals, "score").grade(CHAT, ["bb"]) == [0.5]
    assert [signal.prompt_tokens for signal in signals if isinstance(signal, ScorerAsked)] == [0]


async def test_calls_without_an_answer_are_counted(session: aiohttp.ClientSession, signals: list[Signal]) -> None:
    async with serving(status=500) as vllm:
        grader = model(vllm, session, signals)
        await grader.grade(CHAT, TEXTS)
        await grader.absolute(CHAT, TEXTS[:2])
        await grader.grade(CHAT, [])
        assert grader.unanswered == 2
        vllm.status = 400
        await grader.grade(CHAT, TEXTS)
        assert grader.unanswered == 0, "a refusal is an answer"
