"""The sampler on a real vLLM: ids, log-probabilities and refusals are what the trainer and the gate rely on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tao_daemon.clients.vllm import VllmClient
from tao_daemon.domain.completion import PLAIN, REFUSED, CompletionGroup
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.ports import Example, SamplingAids
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import SamplesLost, Signal
from tao_daemon.sampling.extracted import answer_tokens, tokenize_body

pytestmark = pytest.mark.vllm

PLAINLY = SamplingAids()
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
async def client(tiny_vllm: Any) -> AsyncIterator[VllmClient]:
    async with aiohttp.ClientSession() as session:
        yield VllmClient(tiny_vllm.url, api_key=None, session=session)


def prompt(name: str, **request: Any) -> Prompt:
    if "prompt" not in request:
        request.setdefault("messages", [{"role": "user", "content": f"Say {name}."}])
    return Prompt(name, request, Source("t", 0, 0), received_at=0.0)


async def sampled(
    sampler: Any, *prompts: Prompt, model: str | None = None, seed: int = 1, aids: SamplingAids = PLAINLY
) -> dict[str, CompletionGroup]:
    return {group.prompt_id: group async for group in sampler.sample(prompts, model=model, seed=seed, aids=aids)}


async def test_token_ids_and_logprobs_are_those_of_the_prompt_that_was_asked(
    tiny_vllm: Any, client: VllmClient, make_sampler: Any
) -> None:
    hint = {"name": "hint", "instruction": "Reply in capitals only, please.", "completions": 2}
    asked = [prompt("chat"), prompt("tools", messages=[{"role": "user", "content": "Call f."}], tools=[TOOL])]
    groups = await sampled(make_sampler(tiny_vllm.url, strategies=[hint]), *asked, prompt("bare", prompt="The sky is"))
    assert set(groups) == {"chat", "tools", "bare"}
    for group in groups.values():
        assert [c.strategy for c in group.completions] == [PLAIN] * 3 + ["hint"] * 2
        for completion in group.completions:
            assert 1 <= len(completion.token_ids) == len(completion.logprobs) <= 16
            (exact,) = await client.prompt_logprobs("base", [group.prompt_token_ids + completion.token_ids])
            under_plain = exact[len(group.prompt_token_ids) - 1 :]
            if completion.is_plain:
                assert completion.logprobs == pytest.approx(under_plain, abs=1e-3)
            else:
                assert completion.logprobs != pytest.approx(under_plain, abs=1e-3)


async def test_the_plain_prompts_ids_are_the_servers_own_rendering(tiny_vllm: Any, make_sampler: Any) -> None:
    asked = prompt("chat", messages=[{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}])
    group = (await sampled(make_sampler(tiny_vllm.url), asked))["chat"]
    body = {"model": "base", "messages": asked.request["messages"]}
    async with aiohttp.ClientSession() as session, session.post(f"{tiny_vllm.url}/tokenize", json=body) as answer:
        assert list(group.prompt_token_ids) == (await answer.json())["tokens"]


async def test_a_seed_fixes_the_samples_of_a_prompt(tiny_vllm: Any, make_sampler: Any) -> None:
    sampler = make_sampler(tiny_vllm.url)
    first, again, other = [await sampled(sampler, prompt("chat"), seed=seed) for seed in (1, 1, 2)]

    def ids(groups: dict[str, CompletionGroup]) -> list[tuple[int, ...]]:
        return [completion.token_ids for completion in groups["chat"].completions]

    assert ids(first) == ids(again)
    assert ids(first) != ids(other)
    assert len(set(ids(first))) == 3


async def test_the_clients_limits_and_shaping_do_not_reach_the_samples(tiny_vllm: Any, make_sampler: Any) -> None:
    shaped = {"temperature": 0.0, "top_k": 1, "response_format": {"type": "json_object"}, "max_completion_tokens": 5}
    group = (await sampled(make_sampler(tiny_vllm.url), prompt("chat", **shaped)))["chat"]
    assert all(len(completion.token_ids) <= 5 for completion in group.completions)
    assert len({completion.token_ids for completion in group.completions}) == 3


async def test_a_prompt_beyond_the_context_is_refused_by_itself(
    tiny_vllm: Any, make_sampler: Any, signals: list[Signal]
) -> None:
    endless = prompt("endless", messages=[{"role": "user", "content": "word " * 20_000}])
    sampler = make_sampler(tiny_vllm.url)
    assert set(await sampled(sampler, endless, prompt("chat"))) == {"chat"}
    answers = await sampler.answer([endless, prompt("chat")], model=None)
    assert [answer.finish_reason == REFUSED for answer in answers] == [True, False]
    assert [signal for signal in signals if isinstance(signal, SamplesLost)] == [SamplesLost("refused", 1)] * 2


async def test_greedy_answers_repeat_and_keep_to_the_limit(tiny_vllm: Any, make_sampler: Any) -> None:
    sampler = make_sampler(tiny_vllm.url)
    asked = [prompt("one"), prompt("two", prompt="Two is", max_tokens=4)]
    answers = await sampler.answer(asked, model=None)
    assert answers == await sampler.answer(asked, model=None)
    assert answers[1].completion_tokens <= 4


async def test_an_adapter_that_is_not_loaded_is_an_error(tiny_vllm: Any, make_sampler: Any) -> None:
    sampler = make_sampler(tiny_vllm.url)
    with pytest.raises(UpstreamError) as caught:
        await sampler.answer([prompt("chat")], model="no-such-adapter")
    assert caught.value.status == 404
    with pytest.raises(UpstreamError):
        await sampled(sampler, prompt("chat"), model="no-such-adapter")


async def test_structured_completions_are_valid_and_end_by_themselves(
    tiny_vllm: Any, make_sampler: Any, tmp_path: Path
) -> None:
    schema = {"enum": ["alpha", "beta"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    strategies = [
        {"name": "own", "type": "structured"},
        {"name": "file", "type": "structured", "schema_file": tmp_path / "schema.json"},
    ]
    own = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    asked = [prompt("chat", response_format=own), prompt("bare", prompt="The sky is")]
    groups = await sampled(make_sampler(tiny_vllm.url, strategies=strategies), *asked)
    found = {name: [c for c in group.completions if not c.is_plain] for name, group in groups.items()}
    assert [c.strategy for c in found["chat"]] == ["own"] * 2 + ["file"] * 2
    assert [c.strategy for c in found["bare"]] == ["file"] * 2
    for completion in [*found["chat"], *found["bare"]]:
        assert json.loads(completion.text) in schema["enum"]
        assert completion.finish_reason == "stop"
        assert len(completion.token_ids) == len(completion.logprobs)


async def test_examples_change_what_is_asked_and_not_the_plain_prompts_ids(tiny_vllm: Any, make_sampler: Any) -> None:
    shots = {"name": "shots", "type": "few_shot", "examples": 1}
    example = Example("other", {"messages": [{"role": "user", "content": "Say other."}]}, "other", reward=1.0)
    sampler = make_sampler(tiny_vllm.url, strategies=[shots])
    plain = (await sampled(sampler, prompt("chat")))["chat"]
    shown = (await sampled(sampler, prompt("chat"), aids=SamplingAids(examples=lambda _: [example])))["chat"]
    assert (plain.examples, shown.examples) == ((), ("other",))
    assert shown.prompt_token_ids == plain.prompt_token_ids
    assert [c.strategy for c in shown.completions] == [PLAIN] * 3 + ["shots"] * 2
    assert shown.completions[:3] == plain.completions


@pytest.mark.parametrize(
    "answer", ["42", '{"category": "billing", "urgent": false}', "Zwei Zeilen,\nmit Umlauten: äöü ✓"]
)
async def test_an_extracted_answers_tokens_are_its_text_and_the_end_of_the_turn(
    answer: str, tiny_vllm: Any, client: VllmClient, make_sampler: Any
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_vllm.model)
    asked = prompt("chat", tools=[TOOL])
    plain = (await sampled(make_sampler(tiny_vllm.url), asked))["chat"].prompt_token_ids
    conversation = await client.tokenize(tokenize_body(asked.request, model="base", answer=answer))
    tokens = answer_tokens(plain, conversation, {tokenizer.eos_token_id}, 64)
    assert tokens is not None
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens[:-1]) == answer
    assert len(conversation) > len(plain) + len(tokens), "the template goes on after the end token"


async def test_the_budget_is_spent_where_rewards_differ_and_saved_elsewhere(tiny_vllm: Any, make_sampler: Any) -> None:
    form = {"name": "form", "type": "structured"}
    own = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"enum": ["alpha", "beta"]}}}
    sampler = make_sampler(tiny_vllm.url, completions=4, first_completions=2, strategies=[form])
    # The model never ends by itself: only the client's own limit makes that a bad answer.
    asked = [prompt("differs", response_format=own, max_tokens=16), prompt("same", max_tokens=16)]

    async def preview(prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        return [float(text in ('"alpha"', '"beta"')) for text in texts]

    aids = SamplingAids(preview=preview)
    groups = await sampled(sampler, *asked, aids=aids)
    plain = {name: [c.token_ids for c in group.completions if c.is_plain] for name, group in groups.items()}
    assert {name: len(found) for name, found in plain.items()} == {"differs": 4, "same": 2}
    assert len(set(plain["differs"])) == 4
    again = await sampled(sampler, asked[0], aids=aids)
    assert [c.token_ids for c in again["differs"].completions] == [c.token_ids for c in groups["differs"].completions]


async def test_a_draw_is_one_plain_completion_of_what_the_server_takes(tiny_vllm: Any, make_sampler: Any) -> None:
    endless = prompt("endless", messages=[{"role": "user", "content": "word " * 20_000}])
    drawn = await make_sampler(tiny_vllm.url).draw([endless, prompt("one"), prompt("two")], model=None, seed=1)
    assert [group.prompt_id for group in drawn] == ["one", "two"]
    assert [len(group.completions) for group in drawn] == [1, 1]
    assert all(c.is_plain and len(c.token_ids) == len(c.logprobs) for group in drawn for c in group.completions)
