"""The sampler on a real vLLM: ids, log-probabilities and refusals are what the trainer and the gate rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tao_daemon.clients.vllm import VllmClient
from tao_daemon.domain.completion import PLAIN, REFUSED, CompletionGroup
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.ports import SamplingAids
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import SamplesLost, Signal

pytestmark = pytest.mark.vllm

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
    sampler: Any, *prompts: Prompt, model: str | None = None, seed: int = 1
) -> dict[str, CompletionGroup]:
    return {
        group.prompt_id: group async for group in sampler.sample(prompts, model=model, seed=seed, aids=SamplingAids())
    }


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
