"""Strategies and budgets over real HTTP: what is asked, what is kept of it, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.ports import Example, Preview, SamplingAids
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import CompletionsSampled, SamplesLost

THOUGHT = {"name": "thought", "type": "chain_of_thought", "completions": 2}
SHOTS = {"name": "shots", "type": "few_shot", "completions": 1, "examples": 2}
WAVES = {"completions": 4, "first_completions": 2, "most_completions": 6}
BARE = Prompt("bare", {"prompt": "The sky is"}, Source("t", 1, 0), received_at=0.0)


async def groups_of(
    sampler: Any, prompts: Sequence[Prompt], aids: SamplingAids | None = None
) -> dict[str, CompletionGroup]:
    aids = aids or SamplingAids()
    return {group.prompt_id: group async for group in sampler.sample(prompts, model=None, seed=1, aids=aids)}


def lost(signals: list[Any]) -> dict[str, int]:
    return {signal.kind: signal.count for signal in signals if isinstance(signal, SamplesLost)}


def thinks(*answers: str, **changes: Any) -> Any:
    """Behaviour: requests with a thought answer these texts, one per completion."""

    def behave(body: Any, answer: Any) -> Any:
        if body["max_tokens"] > 16:
            for choice, text in zip(answer["choices"], answers, strict=True):
                choice |= {"message": {"content": text}, **changes}
        return answer

    return behave


def previews(*rewards: float | None) -> Preview:
    async def preview(prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        return [rewards[place % len(rewards)] for place in range(len(texts))]

    return preview


async def test_an_answer_is_taken_out_of_its_thoughts_and_made_tokens_of_the_plain_prompt(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = thinks("2 and 2.\nAnswer: 4", "Hm.\nAnswer: five\n")
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1))).values()
    assert bytes(group.prompt_token_ids).decode() == "[{'role': 'user', 'content': 'question 0'}]"
    assert group.completions[3:] == (
        Completion(3, "thought", "4", (*b"4", 2), (), "stop", extracted=True),
        Completion(4, "thought", "five", (*b"five", 2), (), "stop", extracted=True),
    )
    asked = next(body for body in upstream.bodies if body["n"] == 2)
    assert asked["max_tokens"] == 32
    assert "think step by step" in asked["messages"][0]["content"]
    assert all(body["add_generation_prompt"] is False for body in upstream.conversations)
    assert lost(signals) == {}


@pytest.mark.parametrize("answers", [("Answer: 4", "Answer: 4"), ("no mark", "Answer:  ")])
async def test_thoughts_cost_their_tokens_whatever_is_kept_of_them(
    answers: tuple[str, ...], upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    thoughts = {"token_ids": [7] * 20 + [2], "logprobs": {"content": [{"logprob": -1.0}] * 21}}
    upstream.behave = thinks(*answers, **thoughts)
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1))).values()
    plain = sum(len(completion.token_ids) for completion in group.completions if completion.is_plain)
    (told,) = (signal for signal in signals if isinstance(signal, CompletionsSampled))
    assert told.tokens == plain + 2 * 21


async def test_a_strategy_may_sample_cooler_and_plain_completions_never_do(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    focused = {"name": "focused", "type": "template", "template": "{prompt}", "completions": 1, "temperature": 0.6}
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[focused]), prompts(1))).values()
    plain, cooler = sorted(upstream.bodies, key=lambda body: -body["temperature"])
    assert (plain["temperature"], cooler["temperature"]) == (1.0, 0.6)
    assert plain["messages"] == cooler["messages"]
    assert [completion.strategy for completion in group.completions] == [*[PLAIN] * plain["n"], "focused"]


async def test_the_same_answer_is_made_tokens_once(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    upstream.behave = thinks("Answer: 4", "So:\nAnswer: 4")
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1))).values()
    assert [c.text for c in group.completions[3:]] == ["4", "4"]
    assert len(upstream.conversations) == 1


@pytest.mark.parametrize(
    ("answers", "changes", "kind"),
    [
        (("no mark", "Answer:  "), {}, "no_answer"),
        (("Answer: 4", "Answer: 4"), {"finish_reason": "length"}, "no_answer"),
        (("Answer: a STOP b", "Answer: STOP"), {}, "no_answer"),
        (("Answer: " + "long " * 20,) * 2, {}, "no_tokens"),
    ],
)
async def test_what_the_model_could_not_have_said_itself_is_left_out_and_counted(
    answers: tuple[str, ...], changes: Any, kind: str, upstream: Any, make_sampler: Any, prompts: Any,
    signals: list[Any],
) -> None:  # fmt: skip
    upstream.behave = thinks(*answers, **changes)
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1, stop=["STOP"]))).values()
    assert [c.strategy for c in group.completions] == [PLAIN] * 3
    assert lost(signals) == {kind: 2}


async def test_without_a_known_end_token_extracted_answers_are_left_out(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    def stopped(body: Any, answer: Any) -> Any:
        answer = thinks("Answer: 4", "Answer: 4")(body, answer)
        for choice in answer["choices"]:
            choice["stop_reason"] = "\n"
        return answer

    upstream.behave = stopped
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1))).values()
    assert len(group.completions) == 3
    assert lost(signals) == {"no_tokens": 2}


async def test_bare_prompts_are_not_asked_to_think(upstream: Any, make_sampler: Any) -> None:
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), [BARE])).values()
    assert len(upstream.bodies) == 1
    assert len(group.completions) == 3


async def test_shown_examples_are_recorded_and_the_plain_prompt_stays(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    asked, other = prompts(2)
    examples = [Example(p.id, p.request, "earlier", 1.0) for p in (asked, other)]
    aids = SamplingAids(examples=lambda _: examples)
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[SHOTS]), [asked], aids)).values()
    assert group.examples == ("p1",)
    assert [len(body["messages"]) for body in sorted(upstream.bodies, key=lambda body: -body["n"])] == [1, 3]
    assert bytes(group.prompt_token_ids).decode() == "[{'role': 'user', 'content': 'question 0'}]"


async def test_examples_of_a_request_that_was_refused_were_not_shown(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    asked, other = prompts(2)
    upstream.behave = lambda body, answer: 400 if len(body["messages"]) > 1 else answer
    aids = SamplingAids(examples=lambda _: [Example(other.id, other.request, "earlier", 1.0)])
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[SHOTS]), [asked], aids)).values()
    assert group.examples == ()


async def test_structured_asks_with_the_schema_of_the_file(
    upstream: Any, make_sampler: Any, prompts: Any, tmp_path: Path
) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"type": "object"}))
    strategies = [{"name": "form", "type": "structured", "schema_file": tmp_path / "s.json", "completions": 1}]
    await groups_of(make_sampler(upstream.url, strategies=strategies), prompts(1))
    found = {body["n"]: body.get("structured_outputs") for body in upstream.bodies}
    assert found == {3: None, 1: {"json": {"type": "object"}}}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "form", "type": "structured", "schema_file": "/nowhere.json"}, r"'form'.*/nowhere\.json"),
        ({"name": "thought", "type": "chain_of_thought", "answer": "magic"}, r"'thought'.*magic"),
    ],
)
def test_a_strategy_that_cannot_work_is_named_at_the_start(strategy: Any, message: str, make_sampler: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make_sampler("http://127.0.0.1:9", strategies=[strategy])


@pytest.mark.parametrize(
    ("preview", "plain", "spared", "added"),
    [
        (previews(1.0), 2, 2, 0),
        (previews(0.0, 1.0), 6, 0, 2),
        (previews(None), 4, 0, 0),
        (None, 4, 0, 0),
    ],
)
async def test_the_budget_follows_the_rewards(
    preview: Preview | None, plain: int, spared: int, added: int, upstream: Any, make_sampler: Any, prompts: Any,
    signals: list[Any],
) -> None:  # fmt: skip
    groups = await groups_of(make_sampler(upstream.url, **WAVES), prompts(2), SamplingAids(preview=preview))
    for group in groups.values():
        assert [c.index for c in group.completions] == list(range(plain))
    told = [signal for signal in signals if isinstance(signal, CompletionsSampled)]
    assert [(signal.spared, signal.added) for signal in told] == [(spared, added)] * 2
    assert len({body["seed"] for body in upstream.bodies}) == len(upstream.bodies)


async def test_a_strategy_that_differs_keeps_the_prompt_going(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    async def preview(prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        return [1.0 if place == 2 else 0.0 for place in range(len(texts))]

    hint = {"name": "hint", "instruction": "Think.", "completions": 1}
    sampler = make_sampler(upstream.url, strategies=[hint], **WAVES)
    (group,) = (await groups_of(sampler, prompts(1), SamplingAids(preview=preview))).values()
    assert [(c.index, c.strategy) for c in group.completions] == [
        (0, PLAIN), (1, PLAIN), (2, "hint"), (3, PLAIN), (4, PLAIN),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "first", "asked"),
    [
        ({"max_tokens": 16}, 2, 6),
        ({"max_tokens": 17}, 3, 3),
        ({}, 3, 3),
        ({}, 2, 4),
    ],
)
async def test_a_completion_cut_off_by_its_client_differs_and_one_cut_off_by_us_says_nothing(
    request_: dict[str, Any], first: int, asked: int, upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    def cut(body: Any, answer: Any) -> Any:
        answer["choices"][0]["finish_reason"] = "length"
        return answer

    upstream.behave = cut
    sampler = make_sampler(upstream.url, **{**WAVES, "first_completions": first})
    aids = SamplingAids(preview=previews(1.0))
    (group,) = (await groups_of(sampler, prompts(1, **request_), aids)).values()
    assert len(group.completions) == asked


async def test_a_later_wave_that_fails_leaves_the_group_as_it_is(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: 400 if body["n"] == 4 else answer
    (group,) = (
        await groups_of(make_sampler(upstream.url, **WAVES), prompts(1), SamplingAids(preview=previews(0.0, 1.0)))
    ).values()
    assert len(group.completions) == 2
    assert lost(signals) == {"refused": 1}


async def test_an_outage_in_a_later_wave_leaves_no_short_group(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: 503 if body["n"] == 4 and "question 0" in str(body["messages"]) else answer
    sampler = make_sampler(upstream.url, **WAVES)
    groups = await groups_of(sampler, prompts(2), SamplingAids(preview=previews(0.0, 1.0)))
    assert {name: len(group.completions) for name, group in groups.items()} == {"p1": 6}
    assert lost(signals) == {"unavailable": 1}


async def test_a_strategy_lost_to_an_outage_leaves_no_short_group(
    upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave = lambda body, answer: 503 if body["n"] == 2 and "question 0" in str(body["messages"]) else answer
    hint = {"name": "hint", "instruction": "Think.", "completions": 2}
    groups = await groups_of(make_sampler(upstream.url, strategies=[hint]), prompts(2))
    assert {name: len(group.completions) for name, group in groups.items()} == {"p1": 5}
    assert lost(signals) == {"unavailable": 1}


async def test_answers_whose_tokens_an_outage_took_leave_no_short_group(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave, upstream.tokenizing = thinks("Answer: 4", "Answer: 5"), 503
    with pytest.raises(UpstreamError, match="none of 1 prompts") as caught:
        await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1))
    assert caught.value.status == 503


@pytest.mark.parametrize("status", [400, 404])
async def test_answers_that_the_server_will_not_make_tokens_of_are_left_out(
    status: int, upstream: Any, make_sampler: Any, prompts: Any, signals: list[Any]
) -> None:
    upstream.behave, upstream.tokenizing = thinks("Answer: 4", "Answer: 5"), status
    (group,) = (await groups_of(make_sampler(upstream.url, strategies=[THOUGHT]), prompts(1))).values()
    assert len(group.completions) == 3
    assert lost(signals) == {"no_tokens": 2}


async def test_one_reward_alone_does_not_end_a_prompt(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    def spoil(body: Any, answer: Any) -> Any:
        answer["choices"][1]["logprobs"]["content"].pop()
        return answer

    upstream.behave = spoil
    await groups_of(make_sampler(upstream.url, **WAVES), prompts(1), SamplingAids(preview=previews(1.0)))
    assert [body["n"] for body in upstream.bodies] == [2, 2]


async def test_a_draw_is_one_plain_completion_in_the_order_of_the_prompts(
    upstream: Any, make_sampler: Any, prompts: Any
) -> None:
    upstream.behave = lambda body, answer: 400 if "question 1" in str(body["messages"]) else answer
    drawn = await make_sampler(upstream.url, strategies=[THOUGHT]).draw(prompts(4), model="m", seed=3)
    assert [group.prompt_id for group in drawn] == ["p0", "p2", "p3"]
    assert all([c.strategy for c in group.completions] == [PLAIN] for group in drawn)
    assert {(body["n"], body["temperature"], body["model"]) for body in upstream.bodies} == {(1, 1.0, "m")}


async def test_a_draw_without_a_server_is_an_error(upstream: Any, make_sampler: Any, prompts: Any) -> None:
    upstream.behave = lambda body, answer: 500
    with pytest.raises(UpstreamError):
        await make_sampler(upstream.url).draw(prompts(2), model=None, seed=1)
