"""The sampler over real HTTP: what it asks, what it makes of good answers, and how it takes bad ones."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tao_daemon.domain.completion import PLAIN, REFUSED, UNANSWERED, Answer, CompletionGroup
from tao_daemon.domain.errors import NothingSampled, PassTimeout, UpstreamError
from tao_daemon.domain.ports import Sampler, SamplingAids
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import CompletionsSampled, SamplesLost, UpstreamCalled

HINT = {"name": "hint", "instruction": "Think first.", "completions": 2}


async def groups_of(sampler: Any, prompts: list[Prompt], model: str | None = None) -> dict[str, CompletionGroup]:
    return {group.prompt_id: group async for group in sampler.sample(prompts, model=model, seed=1, aids=SamplingAids())}


def lost(signals: list[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for signal in signals:
        if isinstance(signal, SamplesLost):
            found[signal.kind] = found.get(signal.kind, 0) + signal.count
    return found


def question(body: Any) -> str:
    return str(body["messages"][-1]["content"])


async def test_a_group_has_plain_and_strategy_completions_and_the_plain_prompts_tokens(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    sampler: Sampler = make_sampler(upstream.url, strategies=[HINT])
    groups = await groups_of(sampler, prompts(3), model="adapter-1")
    assert set(groups) == {"p0", "p1", "p2"}
    group = groups["p1"]
    assert [(c.index, c.strategy) for c in group.completions] == [
        (0, PLAIN), (1, PLAIN), (2, PLAIN), (3, "hint"), (4, "hint"),
    ]  # fmt: skip
    assert [c.token_ids for c in group.completions[:2]] == [(100, 2), (101, 2)]
    assert bytes(group.prompt_token_ids).decode() == "[{'role': 'user', 'content': 'question 1'}]"
    assert {body["model"] for body in upstream.bodies} == {"adapter-1"}
    assert len({body["seed"] for body in upstream.bodies}) == 6
    counts = [signal for signal in signals if isinstance(signal, CompletionsSampled)]
    assert all(signal.seconds > 0.0 for signal in counts)
    assert [replace(signal, seconds=0.0) for signal in counts] == [
        CompletionsSampled((("hint", 2), (PLAIN, 3)), 10)
    ] * 3


async def test_a_strategy_is_asked_only_where_it_matches(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    special = Prompt(
        "special",
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]},
        Source("t", 1, 0),
        received_at=0.0,
    )
    sampler = make_sampler(upstream.url, strategies=[HINT | {"match_system_sha256": special.system_digest}])
    groups = await groups_of(sampler, [*prompts(1), special])
    assert len(groups["p0"].completions) == 3
    assert len(groups["special"].completions) == 5


async def test_bare_prompts_go_to_the_completions_route(upstream: Any, make_sampler: Any) -> None:
    bare = Prompt("bare", {"prompt": "The sky is"}, Source("t", 1, 0), received_at=0.0)
    groups = await groups_of(make_sampler(upstream.url, strategies=[HINT]), [bare])
    assert bytes(groups["bare"].prompt_token_ids).decode() == "The sky is"
    assert sorted(body["prompt"] for body in upstream.bodies) == ["The sky is", "Think first.\n\nThe sky is"]


async def hang(body: Any, answer: Any) -> Any:
    await asyncio.sleep(30)


async def slow(body: Any, answer: Any) -> Any:
    await asyncio.sleep(0.03)
    return answer


async def test_no_more_prompts_are_in_flight_than_allowed(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    async def slow(body: Any, answer: Any) -> Any:
        await asyncio.sleep(0.02)
        return answer

    upstream.behave = slow
    await groups_of(make_sampler(upstream.url, concurrent_prompts=3), prompts(10))
    assert upstream.most == 3


async def test_groups_come_as_they_finish(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    release = asyncio.Event()

    async def first_is_slow(body: Any, answer: Any) -> Any:
        if question(body) == "question 0":
            await release.wait()
        return answer

    upstream.behave = first_is_slow
    found = []
    async for group in make_sampler(upstream.url).sample(prompts(6), model=None, seed=1, aids=SamplingAids()):
        found.append(group.prompt_id)
        if len(found) == 5:
            release.set()
    assert found[-1] == "p0"


async def test_the_least_busy_server_is_asked(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    release = asyncio.Event()

    async def wait(body: Any, answer: Any) -> Any:
        await release.wait()
        return answer

    def count(body: Any, answer: Any) -> Any:
        if len(other_upstream.bodies) == 5:
            release.set()
        return answer

    # One keeps what it has until the other has answered nearly all the rest.
    upstream.behave, other_upstream.behave = wait, count
    await groups_of(make_sampler(upstream.url, other_upstream.url, concurrent_prompts=4), prompts(8))
    assert len(upstream.bodies) + len(other_upstream.bodies) == 8
    assert len(upstream.bodies) <= 3


async def test_a_server_that_is_gone_is_skipped(
    upstream: Any, other_upstream: Any, other_server: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    async def kill(body: Any, answer: Any) -> Any:
        await other_server.close()
        return answer

    upstream.behave = kill
    groups = await groups_of(make_sampler(upstream.url, other_upstream.url), prompts(20))
    assert len(groups) == 20
    assert lost(signals) == {}
    failed = [s for s in signals if isinstance(s, UpstreamCalled) and s.outcome == "unreachable"]
    assert len(failed) <= 8


async def test_a_server_that_is_back_is_asked_again(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    sampler = make_sampler(upstream.url, other_upstream.url)
    upstream.behave = lambda body, answer: 503
    await groups_of(sampler, prompts(4))
    failed = len(upstream.bodies)
    upstream.behave = lambda body, answer: answer
    await asyncio.sleep(1.0)
    await groups_of(sampler, prompts(8))
    assert len(upstream.bodies) > failed


async def test_a_passing_failure_is_asked_again_elsewhere(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: 500
    groups = await groups_of(make_sampler(upstream.url, other_upstream.url), prompts(12))
    assert len(groups) == 12
    assert lost(signals) == {}
    assert 1 <= len(upstream.bodies) <= 2, "one that failed is left out for a while"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_server_without_the_adapter_costs_no_prompt(
    status: int, upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    async def slow(body: Any, answer: Any) -> Any:
        await asyncio.sleep(0.01)
        return answer

    upstream.behave, other_upstream.behave = lambda body, answer: status, slow
    groups = await groups_of(make_sampler(upstream.url, other_upstream.url), prompts(30), model="adapter-1")
    assert len(groups) == 30
    assert lost(signals) == {}
    assert 1 <= len(upstream.bodies) <= 4, "it is left out for a while"


async def test_an_adapter_that_no_server_has_is_asked_for_once_everywhere(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave = other_upstream.behave = lambda body, answer: 404
    with pytest.raises(UpstreamError) as caught:
        await make_sampler(upstream.url, other_upstream.url).answer(prompts(1), model="adapter-1")
    assert caught.value.status == 404
    assert (len(upstream.bodies), len(other_upstream.bodies)) == (1, 1)


async def test_a_denial_here_does_not_end_what_may_pass_there(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave = lambda body, answer: 404
    other_upstream.behave = lambda body, answer: answer if len(other_upstream.bodies) > 2 else 503
    groups = await groups_of(make_sampler(upstream.url, other_upstream.url), prompts(1))
    assert set(groups) == {"p0"}
    assert len(upstream.bodies) <= 1


async def test_an_engine_that_hangs_behind_its_metrics_costs_few_prompts(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave, other_upstream.behave = hang, slow
    sampler = make_sampler(upstream.url, other_upstream.url, timeout_seconds=0.2)
    groups = await groups_of(sampler, prompts(80))
    assert upstream.looks > 0
    assert len(upstream.bodies) <= 3
    assert lost(signals) == {"unavailable": len(upstream.bodies)}
    assert len(groups) == 80 - len(upstream.bodies)


async def test_what_waits_for_room_at_a_server_that_hangs_goes_elsewhere(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    # Its queue is as long for ever after the first request.
    upstream.behave, upstream.waiting, other_upstream.behave = hang, [0, 50], slow
    sampler = make_sampler(upstream.url, other_upstream.url, timeout_seconds=0.4, max_waiting_requests=0)
    async with asyncio.timeout(20):
        groups = await groups_of(sampler, prompts(40))
    assert lost(signals) == {"unavailable": len(upstream.bodies)}
    assert 1 <= len(upstream.bodies) <= 2
    assert len(groups) == 40 - len(upstream.bodies)


async def test_a_tokenizer_that_answers_does_not_bring_its_engine_back(
    upstream: Any, other_upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    def thought(body: Any, answer: Any) -> Any:
        for place, choice in enumerate(answer["choices"]):
            choice["message"] = {"content": f"Answer: {place}"}
        return answer

    # The engine that is down has the only tokenizer that answers.
    upstream.behave, other_upstream.behave, other_upstream.tokenizing = lambda body, answer: 503, thought, 503
    think = {"name": "thought", "type": "chain_of_thought", "completions": 2}
    groups = await groups_of(make_sampler(upstream.url, other_upstream.url, strategies=[think]), prompts(20))
    assert len(groups) == 20
    assert upstream.conversations
    assert 1 <= len(upstream.bodies) <= 8


async def test_a_refused_prompt_is_left_out_and_counted(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    upstream.behave = lambda body, answer: 400 if question(body) == "question 2" else answer
    with caplog.at_level(logging.DEBUG):
        groups = await groups_of(make_sampler(upstream.url), prompts(5))
    assert set(groups) == {"p0", "p1", "p3", "p4"}
    assert lost(signals) == {"refused": 1}
    assert sum(question(body) == "question 2" for body in upstream.bodies) == 1
    record = next(record for record in caplog.records if record.message == "samples lost")
    assert (record.__dict__["prompt_id"], record.__dict__["status"]) == ("p2", 400)
    assert "question" not in repr([record.__dict__ for record in caplog.records])


async def test_a_refused_strategy_costs_only_its_own_completions(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: 400 if body["n"] == 2 else answer
    groups = await groups_of(make_sampler(upstream.url, strategies=[HINT]), prompts(2))
    assert [len(group.completions) for group in groups.values()] == [3, 3]
    assert lost(signals) == {"refused": 2}


async def test_a_refused_plain_prompt_is_no_group_whatever_a_strategy_says(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave = lambda body, answer: 400 if body["n"] == 3 and question(body) == "question 0" else answer
    groups = await groups_of(make_sampler(upstream.url, strategies=[HINT]), prompts(2))
    assert set(groups) == {"p1"}


async def test_completions_without_matching_logprobs_are_dropped_one_by_one(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    def spoil(body: Any, answer: Any) -> Any:
        answer["choices"][1]["logprobs"]["content"].pop()
        return answer

    upstream.behave = spoil
    groups = await groups_of(make_sampler(upstream.url), prompts(2))
    assert [[c.index for c in group.completions] for group in groups.values()] == [[0, 2]] * 2
    assert lost(signals) == {"malformed": 2}


async def test_a_server_without_token_ids_is_named(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    upstream.behave = lambda body, answer: answer | {"prompt_token_ids": None}
    with pytest.raises(NothingSampled, match=r"none of 5 prompts .*return_token_ids"):
        await groups_of(make_sampler(upstream.url), prompts(5))


async def test_when_all_are_refused_the_pass_fails(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    upstream.behave = lambda body, answer: 400
    with pytest.raises(NothingSampled, match=r"none of 5 prompts .*status: 400"):
        await groups_of(make_sampler(upstream.url), prompts(5))


async def test_a_few_refused_leftovers_of_an_interrupted_pass_do_not_fail_it(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave = lambda body, answer: 400
    assert await groups_of(make_sampler(upstream.url), prompts(3)) == {}
    assert await groups_of(make_sampler(upstream.url), []) == {}


async def test_an_outage_ends_the_pass_and_what_was_yielded_stands(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: answer if question(body) in ("question 0", "question 1") else 503
    found: list[str] = []

    async def collect() -> None:
        async for group in make_sampler(upstream.url).sample(prompts(40), model=None, seed=1, aids=SamplingAids()):
            found.append(group.prompt_id)

    with pytest.raises(UpstreamError, match="no model server answered 4 prompts in a row") as caught:
        await collect()
    assert sorted(found) == ["p0", "p1"]
    assert caught.value.status == 503
    assert len(upstream.bodies) < 40
    assert len(asyncio.all_tasks()) < 10


async def test_nobody_listening_is_an_upstream_error(make_sampler: Any, prompts: Any) -> None:
    with pytest.raises(UpstreamError, match=r"check serving\.replicas"):
        await groups_of(make_sampler("http://127.0.0.1:9"), prompts(4))
    with pytest.raises(UpstreamError, match="none of 1 prompts"):
        await groups_of(make_sampler("http://127.0.0.1:9"), prompts(1))


async def test_one_prompt_that_hangs_is_given_up_and_counted(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    async def hang(body: Any, answer: Any) -> Any:
        if question(body) == "question 1":
            await asyncio.sleep(30)
        return answer

    upstream.behave = hang
    groups = await groups_of(make_sampler(upstream.url, timeout_seconds=0.3), prompts(4))
    assert set(groups) == {"p0", "p2", "p3"}
    assert lost(signals) == {"unavailable": 1}


async def test_the_deadline_of_the_pass_is_kept(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    async def hang(body: Any, answer: Any) -> Any:
        if question(body) != "question 0":
            await asyncio.sleep(30)
        return answer

    upstream.behave = hang
    with pytest.raises(PassTimeout, match=r"5 of 6 prompts .*phase_timeout_seconds \(0.3 s\)"):
        await groups_of(make_sampler(upstream.url, phase_timeout_seconds=0.3), prompts(6))
    await _until_idle(upstream)


async def test_a_busy_server_is_left_in_peace_until_its_queue_is_short(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.waiting = [9, 5, 2, 0]
    seen: list[int] = []

    def note(body: Any, answer: Any) -> Any:
        seen.append(upstream.looks)
        return answer

    upstream.behave = note
    await groups_of(make_sampler(upstream.url, max_waiting_requests=2, concurrent_prompts=1), prompts(2))
    assert seen == [3, 4]


async def test_a_server_that_stays_busy_gets_nothing_until_the_deadline(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.waiting = [50]
    with pytest.raises(PassTimeout, match="phase_timeout_seconds"):
        await groups_of(make_sampler(upstream.url, phase_timeout_seconds=0.4), prompts(6))
    assert upstream.bodies == []
    assert upstream.looks < 6


async def test_closing_early_leaves_nothing_running(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    async def first_only(body: Any, answer: Any) -> Any:
        if question(body) != "question 0":
            await asyncio.sleep(30)
        return answer

    upstream.behave = first_only
    async with aclosing(
        make_sampler(upstream.url).sample(prompts(9), model=None, seed=1, aids=SamplingAids())
    ) as groups:
        assert (await anext(groups)).prompt_id == "p0"
    await _until_idle(upstream)


async def test_cancelling_the_consumer_leaves_nothing_running(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    async def hang(body: Any, answer: Any) -> Any:
        await asyncio.sleep(30)

    upstream.behave = hang
    before = asyncio.all_tasks()
    task = asyncio.create_task(groups_of(make_sampler(upstream.url, strategies=[HINT]), prompts(9)))
    while upstream.running < 8:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until_idle(upstream)
    ours = {t for t in asyncio.all_tasks() - before if "sampl" in repr(t.get_coro())}
    assert ours == set()


async def test_answers_come_in_order_as_the_client_would_get_them(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    async def reversed_order(body: Any, answer: Any) -> Any:
        number = int(question(body).split()[1])
        await asyncio.sleep(0.05 - 0.01 * number)
        answer["choices"][0]["message"]["content"] = f"to {number}"
        return answer

    upstream.behave = reversed_order
    format_ = {"type": "json_object"}
    answers = await make_sampler(upstream.url).answer(prompts(5, response_format=format_), model="m")
    assert answers == [Answer(f"to {n}", 2, "stop") for n in range(5)]
    assert {body["temperature"] for body in upstream.bodies} == {0.0}
    assert [body["response_format"] for body in upstream.bodies] == [format_] * 5


async def test_a_refused_answer_says_so(upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]) -> None:
    upstream.behave = lambda body, answer: 400 if question(body) == "question 1" else answer
    answers = await make_sampler(upstream.url).answer(prompts(3), model=None)
    assert answers[1] == Answer("", 0, REFUSED)
    assert [answer.finish_reason for answer in answers] == ["stop", REFUSED, "stop"]
    assert lost(signals) == {"refused": 1}


@pytest.mark.parametrize("status", [404, 401])
async def test_a_missing_answer_is_an_error_and_never_a_score(
    status: int, upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave = lambda body, answer: status if question(body) == "question 1" else answer
    with pytest.raises(UpstreamError) as caught:
        await make_sampler(upstream.url).answer(prompts(3), model=None)
    assert caught.value.status == status


async def test_a_prompt_that_alone_fails_is_unanswered_and_no_outage(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: 500 if question(body) == "question 1" else answer
    sampler = make_sampler(upstream.url)
    answers = await sampler.answer(prompts(3), model=None)
    assert [answer.finish_reason for answer in answers] == ["stop", UNANSWERED, "stop"]
    assert lost(signals) == {"unavailable": 2}, "it was asked again"
    assert [group.prompt_id for group in await sampler.draw(prompts(3), model=None, seed=1)] == ["p0", "p2"]


async def test_a_server_that_dies_among_answers_is_an_outage(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    def dies(body: Any, answer: Any) -> Any:
        return answer if len(upstream.bodies) <= 4 else 503

    upstream.behave = dies
    with pytest.raises(UpstreamError) as caught:
        await make_sampler(upstream.url).answer(prompts(6), model=None)
    assert caught.value.status == 503


async def test_an_answer_of_the_wrong_shape_is_an_error(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    upstream.behave = lambda body, answer: {"choices": []}
    with pytest.raises(UpstreamError, match="no single finished answer to prompt p0"):
        await make_sampler(upstream.url).answer(prompts(1), model=None)


def test_a_sampler_needs_a_server(make_sampler: Any) -> None:
    with pytest.raises(ValueError, match=r"set serving\.replicas"):
        make_sampler()


async def _until_idle(upstream: Any) -> None:
    """The server sees the closed connections a moment later."""
    async with asyncio.timeout(20):
        while upstream.running:
            await asyncio.sleep(0.01)
