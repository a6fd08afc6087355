"""A canary through a real gateway: who is in it, where its requests may go, and what is counted for whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.split import identity, place, within

Start = Callable[..., Awaitable[Any]]
CANARY = Routes(7, "old", "older", "new", 0.5, "salt")


def in_candidate(conversation: str, routes: Routes = CANARY) -> bool:
    return within(routes.fraction, place(routes.salt, identity(conversation, {})))


INSIDE = next(str(number) for number in range(99) if in_candidate(str(number), replace(CANARY, fraction=0.2)))
OUTSIDE = next(str(number) for number in range(99) if not in_candidate(str(number)))


@pytest.fixture
def canary(start_gateway: Start, upstream: Any, daemon: Any) -> Callable[..., Awaitable[Any]]:
    """Starts a gateway under the given routes."""

    async def start(routes: Routes = CANARY, **options: Any) -> Any:
        upstream.models |= {"old", "older", "new"}
        daemon.routes = routes
        return await start_gateway(daemon_url=daemon.url, **options)

    return start


async def counted(daemon: Any, generation: int = CANARY.generation, **expected: Any) -> dict[str, Any]:
    """Both arms as reported, once they are as expected."""

    def found(report: dict[str, Any]) -> bool:
        split = report["splits"].get(str(generation), {})
        return all(split.get(arm, {}).items() >= counts.items() for arm, counts in expected.items())

    report: dict[str, Any] = await daemon.report(found)
    split: dict[str, Any] = report["splits"][str(generation)]
    return split


async def test_any_number_of_gateways_send_a_conversation_to_the_same_version(canary: Start, daemon: Any) -> None:
    gateways = [await canary() for _ in range(2)]
    names = [str(number) for number in range(20)]
    for gateway in gateways:
        versions = [await gateway.version(name) for name in names]
        assert versions == ["new" if in_candidate(name) else "old" for name in names]
        assert set(versions) == {"new", "old"}


async def test_a_conversation_without_a_header_is_known_by_how_it_began(canary: Start) -> None:
    gateway = await canary()
    for number in range(8):
        messages = [{"role": "user", "content": f"question {number}"}]
        seen = set()
        for _ in range(2):
            async with gateway.chat(messages=messages) as response:
                seen.add(response.headers["X-Tao-Version"])
            messages += [{"role": "assistant", "content": "answer"}, {"role": "user", "content": "and?"}]
        assert len(seen) == 1


async def test_a_running_answer_keeps_its_version_and_its_generation(canary: Start, upstream: Any, daemon: Any) -> None:
    upstream.tokens, upstream.pause = 10, 0.05
    gateway = await canary()
    async with gateway.chat(INSIDE, stream=True) as response:
        daemon.publish(replace(CANARY, generation=8, fraction=1.0))
        await daemon.report(lambda report: report["generation"] == 8 and report["in_flight"] == {"new": 1})
        upstream.finish_reason = "length"
        assert "new#9" in await response.text()
    split = await counted(daemon, 7, candidate={"truncated": 1})
    assert split["candidate"] == {"requests": 1, "conversations": 1, "errors": 0, "slow": 0, "truncated": 1}
    assert str(8) not in daemon.reports[-1]["splits"]


async def test_a_missing_candidate_falls_back_and_is_its_own_arms_error(
    canary: Start, upstream: Any, daemon: Any
) -> None:
    gateway = await canary()
    upstream.models.discard("new")
    assert [await gateway.version(INSIDE) for _ in range(2)] == ["old", "old"]
    upstream.models.discard("old")
    assert await gateway.version(INSIDE) == "older"
    split = await counted(daemon, candidate={"requests": 3})
    assert split["candidate"] == {"requests": 3, "conversations": 1, "errors": 1, "slow": 0, "truncated": 0}
    assert split["incumbent"]["requests"] == 0
    metrics = await gateway.metrics()
    assert metrics['tao_gateway_fallbacks_total{kind="candidate"}'] == 3
    assert metrics['tao_gateway_requests_total{kind="adapter",status="2xx"}'] == 2
    assert metrics['tao_gateway_requests_total{kind="previous",status="2xx"}'] == 1


FAILURES = {"500": 1, "503": 1, "cut": 1, "break": 1, "400": 0, "422": 0}


@pytest.mark.parametrize(("behaviour", "errors"), FAILURES.items())
async def test_the_servers_failures_count_and_the_clients_do_not(
    canary: Start, upstream: Any, daemon: Any, behaviour: str, errors: int
) -> None:
    gateway = await canary()
    upstream.behaviour = behaviour
    for conversation in (INSIDE, OUTSIDE, OUTSIDE):
        async with gateway.chat(conversation, stream=behaviour == "cut") as response:
            await response.read()
    split = await counted(daemon, candidate={"requests": 1}, incumbent={"requests": 2})
    assert (split["candidate"]["errors"], split["incumbent"]["errors"]) == (errors, errors)
    assert split["incumbent"]["conversations"] == 1


async def test_a_timeout_is_an_error_and_a_client_that_leaves_is_not(canary: Start, upstream: Any, daemon: Any) -> None:
    gateway = await canary(request_timeout_seconds=0.5)
    upstream.behaviour = "hang"
    async with gateway.chat(INSIDE) as response:
        assert response.status == 504
    leaving = asyncio.create_task(_ask(gateway, OUTSIDE))
    await daemon.report(lambda report: report["in_flight"] == {"old": 1})
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    split = await counted(daemon, candidate={"errors": 1}, incumbent={"requests": 1})
    await daemon.report(lambda report: report["splits"] and report["in_flight"] == {})
    assert split["incumbent"]["errors"] == 0
    metrics = await gateway.metrics()
    assert metrics['tao_gateway_requests_total{kind="adapter",status="cancelled"}'] == 1


async def _ask(gateway: Any, conversation: str) -> None:
    async with gateway.chat(conversation) as response:
        await response.read()


async def test_slow_answers_count_once_per_conversation(canary: Start, upstream: Any, daemon: Any) -> None:
    gateway = await canary(replace(CANARY, slow_seconds=0.1))
    assert await gateway.version(OUTSIDE) == "old"
    upstream.pause = 0.05
    for _ in range(2):
        assert await gateway.version(INSIDE) == "new"
    split = await counted(daemon, candidate={"requests": 2}, incumbent={"requests": 1})
    assert (split["candidate"]["slow"], split["incumbent"]["slow"]) == (1, 0)


async def test_while_baking_what_the_adapter_answers_is_the_candidates(canary: Start, daemon: Any) -> None:
    gateway = await canary(Routes(9, "new", "old", None, 0.0, "bake"))
    assert await gateway.version("1") == "new"
    split = await counted(daemon, 9, candidate={"requests": 1})
    assert split["incumbent"]["requests"] == 0


async def test_without_a_rollout_nothing_is_counted(canary: Start, daemon: Any) -> None:
    gateway = await canary(Routes(9, "new", "old"))
    assert await gateway.version("1") == "new"
    report = await daemon.report(lambda report: sum(report["durations"]) == 1)
    assert report["splits"] == {}


async def test_a_replica_that_is_not_verified_answers_with_the_base_model_alone(
    canary: Start, upstream: Any, daemon: Any, serve: Any
) -> None:
    other = await serve(type(upstream)())
    other.models |= {"old", "older", "new"}
    gateway = await canary(
        replace(CANARY, unready=(upstream.url + "/",)), serving={"replicas": [upstream.url, other.url + "/"]}
    )
    for conversation in (INSIDE, OUTSIDE) * 4:
        assert await gateway.version(conversation) in ("new", "old")
    assert upstream.asked.total() == 0
    daemon.publish(replace(CANARY, generation=8, unready=(upstream.url, other.url)))
    await daemon.report(lambda report: report["generation"] == 8)
    assert {await gateway.version(INSIDE) for _ in range(4)} == {"base"}
    assert set(upstream.asked) == {"base"}
    split = await counted(daemon, 8, candidate={"requests": 4})
    assert split["candidate"]["errors"] == 1


async def test_metrics_tell_kinds_apart(canary: Start, upstream: Any) -> None:
    gateway = await canary()
    upstream.usage, upstream.finish_reason = {"completion_tokens": 17}, "length"
    assert await gateway.version(INSIDE) == "new"
    async with gateway.chat(OUTSIDE, stream=True) as response:
        await response.read()
    metrics = await gateway.metrics()
    assert metrics['tao_gateway_completion_tokens_total{kind="candidate"}'] == 17
    assert metrics['tao_gateway_completion_tokens_total{kind="adapter"}'] == 3
    assert metrics['tao_gateway_truncated_answers_total{kind="adapter"}'] == 1
    assert metrics['tao_gateway_truncated_answers_total{kind="candidate"}'] == 1
    assert metrics['tao_gateway_time_to_first_token_seconds_count{kind="adapter"}'] == 1
    assert metrics['tao_gateway_request_duration_seconds_bucket{kind="candidate",le="+Inf"}'] == 1
    assert metrics["tao_gateway_candidate_fraction_ratio"] == 0.5
    assert json.dumps(sorted(metrics)).count("salt") == 0
