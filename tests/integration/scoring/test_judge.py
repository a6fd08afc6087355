"""The listwise judge, over real sockets, against judges whose truth and faults are known."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from statistics import mean
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.clients.scoring_server import ScoringServer
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import DecoysJudged, ScorerAsked, Signal
from tao_daemon.scoring.decoys import MASTER_KEYS, WINDOW, decoy_for
from tao_daemon.scoring.judge import Judge, JudgeSettings
from tao_daemon.scoring.judging import Ranking, Sheet, parsed, questions, scores
from tao_daemon.scoring.verifier import Failure, Score
from tests.judge_server import JudgeServer, shown

NEEDLE = "needle-41c7"
QUICK = RetryPolicy(attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.02)
SETTINGS = JudgeSettings(
    name="judge",
    model="judge-model",
    rubric="Which is better?",
    timeout_seconds=5.0,
    attempts=3,
    concurrent_requests=8,
    decoy_fraction=0.0,
    max_fooled=0.1,
    price_input=2.0,
    price_output=10.0,
    max_characters=32_000,
    reply_tokens=256,
)
MakeJudge = Callable[..., Judge]


def prompt(name: str = "p", text: str = "How good?") -> Prompt:
    return Prompt(name, {"messages": [{"role": "user", "content": text}]}, Source("t", 0, 0), received_at=0.0)


def by_number(request: str, answer: str) -> float:
    """The truth: "answer 3" is worth 3."""
    return float(answer.split()[-1])


def serving(**faults: Any) -> AbstractAsyncContextManager[JudgeServer]:
    return JudgeServer(**{"quality": by_number, **faults}).serving()


@pytest.fixture
def judge(session: aiohttp.ClientSession, signals: list[Signal]) -> MakeJudge:
    def make(server: JudgeServer, **changes: Any) -> Judge:
        client = ScoringServer(server.url, api_key="secret", session=session, retry=QUICK)
        return Judge(replace(SETTINGS, **changes), client, signals.append)

    return make


def asked(signals: list[Signal]) -> list[ScorerAsked]:
    return [signal for signal in signals if isinstance(signal, ScorerAsked)]


def answers(count: int) -> list[str]:
    return [f"answer {n}" for n in range(count)]


async def test_a_good_judge_ranks_by_the_truth(judge: MakeJudge) -> None:
    async with serving() as server:
        found = await judge(server).grade(prompt(), ["answer 1", "", "answer 3", "Thought process:", "answer 2"])
        assert found == [0.5, 0.0, 1.0, 0.0, 0.75]
        texts = [text for body in server.bodies for _, text in shown(body["messages"][0]["content"])[1]]
        assert sorted(texts) == sorted(["answer 1", "answer 2", "answer 3"] * 2), "what says nothing is not shown"
        first, second = (shown(body["messages"][0]["content"])[1] for body in server.bodies)
        assert [text for _, text in first] == [text for _, text in second][::-1]
        assert {h["Authorization"] for h in server.headers} == {"Bearer secret"}
        assert {body["model"] for body in server.bodies} == {"judge-model"}
        assert {body["max_completion_tokens"] for body in server.bodies} == {256}
        assert all(body["response_format"]["type"] == "json_schema" for body in server.bodies)


async def test_a_preference_for_places_gives_none_for_any_place(judge: MakeJudge) -> None:
    """A bias larger than all differences: one order alone gives the place, both together give the truth or a tie."""
    groups, size = 150, 4
    both: dict[int, list[float]] = defaultdict(list)
    single: dict[int, list[float]] = defaultdict(list)
    async with serving(place_bias=6.0, noise=1.0) as server:
        grader = judge(server)
        for n in range(groups):
            texts = answers(size)
            sheet, ((first, _),) = Sheet.of(texts), questions(Sheet.of(texts), seed=f"p{n}", decoy=None)
            found = await grader.grade(prompt(f"p{n}"), texts)
            shown_first = next(
                body["messages"][0]["content"]
                for body in server.bodies[-2:]
                if [text for _, text in shown(body["messages"][0]["content"])[1]] == list(first.answers)
            )
            alone = parsed(server.rank(shown_first), first)
            assert isinstance(alone, Ranking)
            for place, text in enumerate(first.places):
                score = found[text]
                assert isinstance(score, float)
                both[place].append(score)
                single[place].append(scores(sheet, [alone])[text])
    flat = [mean(both[place]) for place in range(size)]
    steep = [mean(single[place]) for place in range(size)]
    assert max(flat) - min(flat) < 0.15, flat
    assert steep[0] - steep[-1] > 0.5, steep


async def test_behind_a_bias_the_truth_is_still_found(judge: MakeJudge) -> None:
    totals: dict[str, list[float]] = defaultdict(list)
    async with serving(place_bias=2.0, noise=0.5) as server:
        grader = judge(server)
        for n in range(60):
            texts = answers(6)
            for text, score in zip(texts, await grader.grade(prompt(f"p{n}"), texts), strict=True):
                assert isinstance(score, float)
                totals[text].append(score)
    means = [mean(totals[text]) for text in answers(6)]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.8


async def test_more_completions_than_fit_are_compared_in_lists(judge: MakeJudge) -> None:
    async with serving() as server:
        found = await judge(server).grade(prompt(), answers(24))
        assert len(server.bodies) == 6
        assert all(len(shown(body["messages"][0]["content"])[1]) == 16 for body in server.bodies)
    assert found[23] == max(found, key=float) == 1.0
    assert found[0] == min(found, key=float) == 0.0
    assert mean(map(float, found[:8])) < mean(map(float, found[8:16])) < mean(map(float, found[16:]))


async def test_two_answers_of_a_gate(judge: MakeJudge) -> None:
    async with serving() as server:
        grader = judge(server)
        assert await grader.absolute(prompt(), ["answer 1", "answer 2"]) == [0.0, 1.0]
        assert await grader.absolute(prompt(), ["answer 1"]) is None
        server.place_bias = 5.0
        assert await grader.absolute(prompt("q"), ["answer 1", "answer 2"]) == [0.5, 0.5]
        before = len(server.bodies)
        assert await grader.absolute(prompt(), ["answer 1", "answer 1"]) == [0.5, 0.5]
        assert await grader.absolute(prompt(), ["answer 1", " "]) == [1.0, 0.0]
        assert await grader.grade(prompt(), ["", "answer 7", "."]) == [0.0, 1.0, 0.0]
        assert len(server.bodies) == before, "no question was needed"


async def test_a_fooled_judge_is_found_out_and_can_come_back(judge: MakeJudge, signals: list[Signal]) -> None:
    async with serving(
        fooled_by=frozenset(MASTER_KEYS), quality=lambda q, a: by_number(q, a.replace(":", " 0"))
    ) as server:
        grader = judge(server, decoy_fraction=0.5)
        planted = [f"p{n}" for n in range(400) if decoy_for(f"p{n}", 0.5)]
        other = next(f"p{n}" for n in range(400) if not decoy_for(f"p{n}", 0.5))
        before = [await grader.grade(prompt(name), answers(4)) for name in planted[:2]]
        assert all(isinstance(score, float) for row in before for score in row)
        assert await grader.grade(prompt(planted[2]), answers(4)) == [Failure.UNTRUSTED] * 4
        judged = [signal for signal in signals if isinstance(signal, DecoysJudged)]
        assert (len(judged), sum(s.planted for s in judged), sum(s.fooled for s in judged)) == (3, 3, 3)
        requests = len(server.bodies)
        assert await grader.grade(prompt(other), answers(4)) == [Failure.UNTRUSTED] * 4
        assert await grader.grade(prompt(other), ["", "answer 1"]) == [0.0, 1.0], "needs no judge"
        assert len(server.bodies) == requests, "without a planted answer it learns nothing: it is not asked"
        server.fooled_by, server.quality = frozenset(), lambda q, a: by_number(q, a) if "answer" in a else -1.0
        rows = [await grader.grade(prompt(name), answers(4)) for name in planted[40 : 40 + WINDOW]]
        trusted = [isinstance(row[0], float) for row in rows]
        assert not trusted[0]
        assert trusted[-1]
        assert trusted == sorted(trusted)
        assert isinstance((await grader.grade(prompt(other), answers(4)))[0], float)


async def test_what_is_asked_again_is_neither_paid_nor_counted_again(judge: MakeJudge, signals: list[Signal]) -> None:
    """As a phase does that begins anew because another scorer's server was away."""

    def fooled_once(request: str, answer: str) -> float:
        return by_number(request, answer) if answer.startswith("answer") else 100.0 if "p0" in request else -1.0

    async with serving(quality=fooled_once) as server:
        grader = judge(server, decoy_fraction=1.0)
        for _ in range(4):
            rows = [await grader.grade(prompt(f"p{n}", f"How good is p{n}?"), answers(4)) for n in range(8)]
            assert all(isinstance(score, float) for row in rows for score in row)
        assert len(server.bodies) == 16
        judged = [signal for signal in signals if isinstance(signal, DecoysJudged)]
        assert (sum(s.planted for s in judged), sum(s.fooled for s in judged)) == (8, 1)
        await grader.grade(prompt("p0", "How good is p0?"), answers(3))
        await grader.grade(prompt("q0", "How good is q0?"), answers(4))
        assert len(server.bodies) == 20, "other answers, and other prompts, are other questions"


async def test_what_was_not_answered_is_asked_again(judge: MakeJudge) -> None:
    async with serving(error_rate=1.0) as server:
        grader = judge(server)
        assert await grader.grade(prompt(), answers(3)) == [Failure.UNAVAILABLE] * 3
        server.error_rate = 0.0
        assert await grader.grade(prompt(), answers(3)) == [0.0, 0.5, 1.0]


async def test_only_the_latest_are_remembered(judge: MakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tao_daemon.scoring.judge.REMEMBERED", 2)
    async with serving() as server:
        grader = judge(server)
        for name in ("a", "b", "c", "c", "b", "a"):
            await grader.grade(prompt(name), answers(3))
        assert len(server.bodies) == 2 * 4


async def test_a_judge_that_sees_through_them_stays_trusted(judge: MakeJudge, signals: list[Signal]) -> None:
    def truth(request: str, answer: str) -> float:
        return by_number(request, answer) if answer.startswith("answer") else -10.0

    async with serving(quality=truth, place_bias=3.0) as server:
        grader = judge(server, decoy_fraction=1.0)
        rows = [await grader.grade(prompt(f"p{n}"), answers(4)) for n in range(40)]
        assert all(isinstance(score, float) for row in rows for score in row)
        assert await grader.absolute(prompt("p"), ["answer 1", "answer 9"]) == [0.0, 1.0]
    judged = [signal for signal in signals if isinstance(signal, DecoysJudged)]
    assert (sum(s.planted for s in judged), sum(s.fooled for s in judged)) == (41, 0)


async def test_a_judge_that_only_goes_by_place_is_not_fooled_but_one_that_guesses_is(judge: MakeJudge) -> None:
    async with serving(quality=lambda q, a: 0.0, place_bias=1.0) as server:
        grader = judge(server, decoy_fraction=1.0)
        rows = [await grader.grade(prompt(f"p{n}"), answers(4)) for n in range(30)]
        assert {score for row in rows for score in row} == {0.5}
    async with serving(quality=lambda q, a: 0.0, noise=1.0) as server:
        grader = judge(server, decoy_fraction=1.0)
        rows = [await grader.grade(prompt(f"p{n}"), answers(4)) for n in range(40)]
        assert rows[-1] == [Failure.UNTRUSTED] * 4


async def test_an_unreadable_reply_is_asked_again_and_told_why(judge: MakeJudge, signals: list[Signal]) -> None:
    async with serving(malformed_rate=0.4) as server:
        grader = judge(server, attempts=12)
        for n in range(10):
            assert await grader.grade(prompt(f"p{n}"), answers(3)) == [0.0, 0.5, 1.0]
        outcomes = [signal.outcome for signal in asked(signals)]
        assert outcomes.count("ok") == 20
        assert outcomes.count("unreadable") == len(server.bodies) - 20 > 0
        told = [b for b in server.bodies if "Your last reply could not be used" in b["messages"][0]["content"]]
        assert len(told) == len(server.bodies) - 20


async def test_a_judge_that_is_never_readable_fails_its_group(judge: MakeJudge, signals: list[Signal]) -> None:
    async with serving(malformed_rate=1.0) as server:
        assert await judge(server).grade(prompt(), answers(3)) == [Failure.UNREADABLE] * 3
        assert len(server.bodies) == 2 * 3
    assert [signal.outcome for signal in asked(signals)] == ["unreadable"] * 6


async def test_a_failing_server_is_tried_again_and_then_given_up(judge: MakeJudge, signals: list[Signal]) -> None:
    async with serving(error_rate=0.3, seed=5) as server:
        found: list[Score] = [score for n in range(10) for score in await judge(server).grade(prompt(), answers(2))]
        assert found.count(0.0) == found.count(1.0) >= 8
        assert set(found) <= {0.0, 1.0, Failure.UNAVAILABLE}
        assert any(signal.outcome == "failed" for signal in asked(signals))
        server.error_rate = 1.0
        assert await judge(server).grade(prompt(), answers(2)) == [Failure.UNAVAILABLE] * 2
    assert await judge(server).grade(prompt(), answers(2)) == [Failure.UNAVAILABLE] * 2, "and a dead one"


async def test_a_server_that_hangs_meets_its_deadline(judge: MakeJudge, signals: list[Signal]) -> None:
    async with serving(hang_rate=1.0) as server:
        started = time.monotonic()
        found = await judge(server, timeout_seconds=0.3, concurrent_requests=2).grade(prompt(), answers(3))
        assert found == [Failure.TIMEOUT] * 3
        assert time.monotonic() - started < 2.0
    assert [(signal.outcome, signal.cost) for signal in asked(signals)] == [("failed", 0.0)] * 2


async def test_cost_is_counted_to_the_last_request(judge: MakeJudge, signals: list[Signal]) -> None:
    async with serving(prompt_tokens=1234, completion_tokens=56, malformed_rate=0.3, seconds=0.02) as server:
        grader = judge(server, attempts=9)
        await asyncio.gather(*[grader.grade(prompt(f"p{n}"), answers(3)) for n in range(12)])
        paid = asked(signals)
        assert len(paid) == server.answered == len(server.bodies) > 24
        assert sum(s.prompt_tokens for s in paid) == 1234 * server.answered
        assert sum(s.completion_tokens for s in paid) == 56 * server.answered
        assert sum(s.cost for s in paid) == pytest.approx(server.answered * (1234 * 2.0 + 56 * 10.0) / 1e6)
        assert all(0.02 <= s.seconds < 5 for s in paid)
        assert server.most <= 8


@pytest.mark.parametrize(
    ("refused", "kept"),
    [
        ({"response_format"}, {"temperature"}),
        ({"temperature"}, {"response_format"}),
        ({"response_format", "temperature"}, set()),
    ],
)
async def test_a_server_that_refuses_what_is_optional_is_asked_without(
    judge: MakeJudge, refused: set[str], kept: set[str]
) -> None:
    async with serving(refused_keys=frozenset(refused)) as server:
        grader = judge(server, concurrent_requests=1)
        assert await grader.grade(prompt(), answers(3)) == [0.0, 0.5, 1.0]
        first = len(server.bodies)
        assert await grader.grade(prompt("q"), answers(3)) == [0.0, 0.5, 1.0]
        assert len(server.bodies) == first + 2, "it is known"
        assert {"response_format", "temperature"} & server.bodies[-1].keys() == kept


async def test_a_question_that_is_refused_whatever_is_left_out_is_no_matter_of_dialect(judge: MakeJudge) -> None:
    async with serving(refused_keys=frozenset({"model"})) as server:
        grader = judge(server, concurrent_requests=1)
        assert await grader.grade(prompt(), answers(3)) == [Failure.ERROR] * 3
        server.refused_keys = frozenset()
        await grader.grade(prompt(), answers(3))
        assert "response_format" in server.bodies[-1]


@pytest.mark.parametrize("refused_after", [0.0, 0.2, 0.4])
async def test_one_prompt_that_is_refused_degrades_nobody_else(judge: MakeJudge, refused_after: float) -> None:
    """Whether the first answers to others come after it is refused in all dialects, in one, or in none."""
    waits = {True: refused_after, False: 0.3}

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        bodies.append(body)
        question = body["messages"][0]["content"]
        await asyncio.sleep(waits["too long" in question])
        if "too long" in question:
            return web.json_response({}, status=400)
        return web.json_response({"choices": [{"message": {"content": server.rank(question)}}]})

    bodies: list[dict[str, Any]] = []
    server = JudgeServer(by_number)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with TestServer(app) as test_server:
        server.url = str(test_server.make_url("")).rstrip("/")
        grader = judge(server)
        asked = [prompt("long", "too long"), *(prompt(f"p{n}") for n in range(3))]
        found = await asyncio.gather(*[grader.grade(one, answers(3)) for one in asked])
        assert found == [[Failure.ERROR] * 3, *[[0.0, 0.5, 1.0]] * 3]
        await grader.grade(prompt("after"), answers(3))
        assert all({"response_format", "temperature"} <= body.keys() for body in bodies[-2:])
        count = len(bodies)
        assert await grader.grade(prompt("long", "too long"), answers(3)) == [Failure.ERROR] * 3
        assert len(bodies) == count + 2, "what the server understands is known"


async def test_what_a_demanded_form_allows_is_put_to_the_judge(judge: MakeJudge) -> None:
    worth = {"[]": 3.0, "{}": 2.0, "[1]": 1.0}
    messages = [{"role": "user", "content": "Which are wrong?"}]
    request = {"messages": messages, "response_format": {"type": "json_object"}}
    asked = Prompt("p", request, Source("t", 0, 0), received_at=0.0)
    async with serving(quality=lambda q, a: worth.get(a, 0.0)) as server:
        assert await judge(server).grade(asked, ["[1]", "[]", "{}", " "]) == pytest.approx([1 / 3, 1.0, 2 / 3, 0.0])
        texts = ["Solution:", "[]"]
        assert await judge(server).grade(asked, texts) == [0.0, 1.0]
        assert len(server.bodies) == 4
        assert await judge(server).grade(prompt(), texts) == [0.0, 1.0]
        assert len(server.bodies) == 4, "without a form it is a master key"


async def test_an_answer_that_is_the_planted_one_teaches_nothing_of_the_judge(
    judge: MakeJudge, signals: list[Signal]
) -> None:
    name, key = next((f"p{n}", key) for n in range(99) if (key := decoy_for(f"p{n}", 1.0)) == "Respuesta")
    async with serving(quality=lambda q, a: float(len(a))) as server:
        assert await judge(server, decoy_fraction=1.0).grade(prompt(name), ["no", key]) == [0.0, 1.0]
        assert len(shown(server.bodies[0]["messages"][0]["content"])[1]) == 2
    assert not [signal for signal in signals if isinstance(signal, DecoysJudged)]


async def test_calls_without_an_answer_are_counted(judge: MakeJudge) -> None:
    async with serving(hang_rate=1.0) as server:
        grader = judge(server, timeout_seconds=0.2)
        await grader.grade(prompt(), answers(3))
        assert grader.unanswered == 1
        server.hang_rate, server.error_rate = 0.0, 1.0
        await grader.grade(prompt(), answers(3))
        await grader.grade(prompt(), ["", "answer 1"])
        assert grader.unanswered == 2, "a call that needs no judge says nothing of it"
        server.error_rate, server.malformed_rate = 0.0, 1.0
        assert await grader.grade(prompt(), answers(3)) == [Failure.UNREADABLE] * 3
        assert grader.unanswered == 0, "it did answer"


async def test_no_text_is_logged(judge: MakeJudge, signals: list[Signal], caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"{NEEDLE} answer 1", f"{NEEDLE} answer 2"]
    with caplog.at_level(logging.DEBUG):
        for faults in (
            {"malformed_rate": 1.0},
            {"error_rate": 1.0},
            {"hang_rate": 1.0},
            {"refused_keys": frozenset({"model"})},
            {"fooled_by": frozenset(MASTER_KEYS), "quality": lambda q, a: float(NEEDLE in a)},
        ):
            async with serving(**faults) as server:
                grader = judge(server, timeout_seconds=0.2 if "hang_rate" in faults else 30.0, decoy_fraction=1.0)
                for n in range(21 if "fooled_by" in faults else 1):
                    await grader.grade(prompt(f"p{n}", text=f"{NEEDLE}?"), texts)
    assert any(record.message.startswith("judge is not trusted") for record in caplog.records)
    assert any(record.message == "judge not asked" for record in caplog.records)
    assert NEEDLE not in repr([record.__dict__ for record in caplog.records])
    assert NEEDLE not in repr(signals)
