"""The client of one model server: against a server that fails on demand, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tao_daemon.clients.retry import RetryPolicy, is_transient
from tao_daemon.clients.vllm import ServedModel, ServerMetrics, VllmClient
from tao_daemon.domain.errors import AdapterError, UpstreamError, UpstreamTimeout
from tao_daemon.domain.signals import Signal, UpstreamCalled

NEEDLE = "needle-of-the-prompt"
QUICK = RetryPolicy(attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.02)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Stub:
    """A server whose every route is set by the test; remembers what it was asked."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.signals: list[Signal] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.seen.append((request.path, dict(request.headers), body))
        return await self.handlers[request.path](request)

    def answers(self, path: str, *results: Any) -> None:
        """Each result in turn, the last for ever: JSON for 200, (status, JSON), or text."""
        queue = list(results)

        async def handler(request: web.Request) -> web.Response:
            result = queue.pop(0) if len(queue) > 1 else queue[0]
            if isinstance(result, str):
                return web.Response(text=result)
            status, body = result if isinstance(result, tuple) else (200, result)
            return web.json_response(body, status=status)

        self.handlers[path] = handler

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(s.operation, s.outcome) for s in self.signals if isinstance(s, UpstreamCalled)]


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def seconds() -> float:
    """The deadline of every call: far away, so that a busy machine ends none, but where a test is about it."""
    return 30.0


@pytest.fixture
async def client(stub: Stub, seconds: float) -> AsyncIterator[VllmClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield VllmClient(
            str(server.make_url("/")),
            api_key="secret-key",
            session=session,
            inference_seconds=seconds,
            admin_seconds=seconds,
            load_seconds=seconds,
            retry=QUICK,
            emit=stub.signals.append,
        )


def error(message: str, status: int) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "x", "param": None, "code": status}}


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def break_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_inference_sends_body_and_key_and_returns_the_answer(client: VllmClient, stub: Stub) -> None:
    stub.answers("/v1/chat/completions", {"choices": [1]})
    stub.answers("/v1/completions", {"choices": [2]})
    assert await client.chat({"messages": []}) == {"choices": [1]}
    assert await client.complete({"prompt": "x"}) == {"choices": [2]}
    assert [(path, body) for path, _, body in stub.seen] == [
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/completions", {"prompt": "x"}),
    ]
    assert all(headers["Authorization"] == "Bearer secret-key" for _, headers, _ in stub.seen)
    assert stub.outcomes == [("chat", "ok"), ("complete", "ok")]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_an_inference_error_never_quotes_the_server_and_is_asked_once(
    client: VllmClient, stub: Stub, status: int
) -> None:
    stub.answers("/v1/chat/completions", error(f"bad prompt {NEEDLE}", status))
    with pytest.raises(UpstreamError) as caught:
        await client.chat({"messages": [{"role": "user", "content": NEEDLE}]})
    assert caught.value.status == status
    assert f"/v1/chat/completions answered {status}" in str(caught.value)
    assert NEEDLE not in str(caught.value)
    assert len(stub.seen) == 1
    assert stub.outcomes == [("chat", f"http_{status // 100}xx")]


async def test_an_administrative_error_quotes_the_server_shortened(client: VllmClient, stub: Stub) -> None:
    stub.answers("/v1/load_lora_adapter", error("rank 64 is greater than max_lora_rank 16 " + "x" * 5000, 500))
    with pytest.raises(UpstreamError, match="rank 64 is greater") as caught:
        await client.load_adapter("r000001-aa", "/adapters/r000001-aa")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("seconds", [0.5])
async def test_every_call_has_a_deadline(client: VllmClient, stub: Stub) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "/v1/chat/completions": lambda: client.chat({"messages": []}),
        "/v1/completions": lambda: client.prompt_logprobs("m", [[1, 2]]),
        "/v1/models": client.models,
        "/v1/load_lora_adapter": lambda: client.load_adapter("a", "/a"),
        "/v1/unload_lora_adapter": lambda: client.unload_adapter("a"),
        "/metrics": client.waiting_requests,
        "/version": client.version,
    }
    others: dict[str, Callable[[], Awaitable[object]]] = {
        "/v1/load_lora_adapter": client.can_load_adapters,
        "/v1/completions": lambda: client.touch("m"),
        "/metrics": client.metrics,
    }
    for path, call in (*calls.items(), *others.items()):
        stub.handlers[path] = hang
        with pytest.raises(UpstreamTimeout, match=r"within 0\.5 s"):
            await call()
    stub.handlers["/health"] = hang
    assert await client.healthy() is False
    assert {outcome for _, outcome in stub.outcomes} == {"timeout"}
    assert len(stub.outcomes) == len(calls) + len(others) + 1, "a timeout is not repeated"


async def test_a_broken_and_a_refused_connection_are_upstream_errors_without_a_status(
    client: VllmClient, stub: Stub
) -> None:
    stub.handlers["/v1/chat/completions"] = break_off
    with pytest.raises(UpstreamError, match="cannot reach") as caught:
        await client.chat({"messages": []})
    assert caught.value.status is None
    async with aiohttp.ClientSession() as session:
        nowhere = VllmClient("http://127.0.0.1:1", api_key=None, session=session, retry=QUICK)
        with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:1"):
            await nowhere.models()
        assert await nowhere.healthy() is False


async def test_idempotent_calls_are_repeated_while_the_failure_may_pass(client: VllmClient, stub: Stub) -> None:
    stub.answers("/version", error("busy", 503), error("busy", 503), {"version": "0.32.0"})
    assert await client.version() == "0.32.0"
    assert stub.outcomes == [("version", "http_5xx"), ("version", "http_5xx"), ("version", "ok")]
    stub.answers("/v1/models", error("no", 401))
    with pytest.raises(UpstreamError):
        await client.models()
    assert stub.outcomes[3:] == [("models", "http_4xx")]


async def test_models(client: VllmClient, stub: Stub) -> None:
    cards = [{"id": "base", "root": "/model", "parent": None}, {"id": "a", "root": "/a", "parent": "base"}]
    stub.answers("/v1/models", {"data": cards})
    assert await client.models() == (ServedModel("base", "/model", None), ServedModel("a", "/a", "base"))
    stub.answers("/v1/models", "<html>a proxy</html>")
    with pytest.raises(UpstreamError, match="check the URL"):
        await client.models()
    stub.answers("/v1/models", {"data": [7]})
    with pytest.raises(UpstreamError, match="check the URL"):
        await client.models()


async def test_loading_what_is_loaded_from_the_same_path_is_fine_and_from_another_is_not(
    client: VllmClient, stub: Stub
) -> None:
    stub.answers("/v1/load_lora_adapter", error("has already been loaded", 400))
    stub.answers("/v1/models", {"data": [{"id": "a", "root": "/store/a", "parent": "base"}]})
    await client.load_adapter("a", "/store/a")
    with pytest.raises(UpstreamError, match="already been loaded"):
        await client.load_adapter("a", "/elsewhere/a")
    assert stub.seen[0][2] == {"lora_name": "a", "lora_path": "/store/a"}


async def test_unloading_the_unknown_is_fine(client: VllmClient, stub: Stub) -> None:
    stub.answers("/v1/unload_lora_adapter", error("cannot be found", 404))
    await client.unload_adapter("a")
    stub.answers("/v1/unload_lora_adapter", error("broken", 500))
    with pytest.raises(UpstreamError, match="broken"):
        await client.unload_adapter("a")


def position(token: int, logprob: float, **others: float) -> dict[str, Any]:
    return {str(token): {"logprob": logprob, "rank": 1}} | {key: {"logprob": v} for key, v in others.items()}


async def test_prompt_logprobs_are_those_of_the_prompts_own_tokens(client: VllmClient, stub: Stub) -> None:
    stub.answers(
        "/v1/completions",
        {
            "choices": [
                {"index": 1, "prompt_logprobs": [None, position(8, -2.5)]},
                {"index": 0, "prompt_logprobs": [None, position(5, -0.5, x=-9.0), position(6, -1.5)]},
            ]
        },
    )
    assert await client.prompt_logprobs("a", [[4, 5, 6], [7, 8]]) == ((-0.5, -1.5), (-2.5,))
    assert stub.seen[0][2] == {"model": "a", "prompt": [[4, 5, 6], [7, 8]], "max_tokens": 1, "prompt_logprobs": 0}


@pytest.mark.parametrize(
    "prompt_logprobs",
    [None, [], [None, position(5, -0.5)], [None, position(7, -0.5), position(6, -1.0)], [None, None, None]],
)
async def test_other_answers_are_an_error_and_not_a_wrong_number(
    client: VllmClient, stub: Stub, prompt_logprobs: Any
) -> None:
    stub.answers("/v1/completions", {"choices": [{"index": 0, "prompt_logprobs": prompt_logprobs}]})
    with pytest.raises(UpstreamError, match="prompt_logprobs"):
        await client.prompt_logprobs("a", [[4, 5, 6]])


async def test_log_probabilities_that_are_no_numbers_are_an_error(client: VllmClient, stub: Stub) -> None:
    stub.answers("/v1/completions", {"choices": [{"index": 0, "prompt_logprobs": [None, position(5, float("nan"))]}]})
    with pytest.raises(UpstreamError, match="not finite"):
        await client.prompt_logprobs("a", [[4, 5]])


METRICS = """# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="base"} 3.0
vllm:num_requests_waiting{engine="1",model_name="base"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="base",reason="capacity"} 9.0
vllm:num_requests_running{engine="0",model_name="base"} 17.0
"""


async def test_waiting_requests_are_summed_over_engines(client: VllmClient, stub: Stub) -> None:
    stub.answers("/metrics", METRICS)
    assert await client.waiting_requests() == 7
    stub.answers("/metrics", "process_cpu_seconds_total 1.0\n")
    with pytest.raises(UpstreamError, match="num_requests_waiting"):
        await client.waiting_requests()


@pytest.mark.parametrize("value", ["NaN", "+Inf", "many"])
async def test_a_queue_length_that_is_no_number_is_an_upstream_error(
    client: VllmClient, stub: Stub, value: str
) -> None:
    stub.answers("/metrics", f"vllm:num_requests_waiting 3.0\nvllm:num_requests_waiting {value}\n")
    with pytest.raises(UpstreamError, match="no number"):
        await client.waiting_requests()


async def test_an_answer_nested_without_end_is_an_upstream_error(client: VllmClient, stub: Stub) -> None:
    stub.answers("/version", "[" * 100_000)
    with pytest.raises(UpstreamError, match="no JSON object"):
        await client.version()


async def test_an_answer_without_end_is_not_kept_in_memory(
    client: VllmClient, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tao_daemon.clients.vllm._MAX_REPLY_BYTES", 2**20)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 2**28:
            await response.write(b"x" * 2**16)
            sent += 2**16
        return response

    stub.handlers["/v1/models"] = endless
    with pytest.raises(UpstreamError, match="more than 1 MiB; check the URL"):
        await client.models()
    assert sent < 2**26
    assert stub.outcomes == [("models", "http_2xx")]


# As vLLM 0.32 writes them: before its first request, and after.
FRESH = """# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79536842367e+09
# HELP vllm:lora_requests_info Running stats on lora requests.
# TYPE vllm:lora_requests_info gauge
"""
USED = FRESH + 'vllm:lora_requests_info{max_lora="3",running_lora_adapters="a",waiting_lora_adapters=""} 1.79e+09\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FRESH, ServerMetrics(1795368423.67, True, None)),
        (USED, ServerMetrics(1795368423.67, True, 3)),
        ('vllm:lora_requests_info{running_lora_adapters="",max_lora="16"} 1.0', ServerMetrics(None, True, 16)),
        (METRICS, ServerMetrics(None, False, None)),
        ("process_start_time_seconds 5.0\n", ServerMetrics(5.0, None, None)),
        ("process_start_time_seconds NaN\n", ServerMetrics(None, None, None)),
        ("process_start_time_seconds soon\n", ServerMetrics(None, None, None)),
        ("", ServerMetrics(None, None, None)),
    ],
)
async def test_metrics_tell_of_the_process_and_its_slots(
    client: VllmClient, stub: Stub, text: str, expected: ServerMetrics
) -> None:
    stub.answers("/metrics", text)
    assert await client.metrics() == expected


@pytest.mark.parametrize(("status", "can"), [(400, True), (404, False), (405, False)])
async def test_whether_adapters_can_be_loaded_is_asked_without_naming_one(
    client: VllmClient, stub: Stub, status: int, can: bool
) -> None:
    stub.answers("/v1/load_lora_adapter", error("x", status))
    assert await client.can_load_adapters() is can
    assert stub.seen[0][2] == {"lora_name": "", "lora_path": ""}
    stub.answers("/v1/load_lora_adapter", error("wrong key", 401))
    with pytest.raises(UpstreamError, match="wrong key"):
        await client.can_load_adapters()


async def test_a_touch_asks_for_one_token_once(client: VllmClient, stub: Stub) -> None:
    stub.answers("/v1/completions", {"choices": []})
    await client.touch("a")
    assert stub.seen[0][2] == {"model": "a", "prompt": [1], "max_tokens": 1}
    stub.answers("/v1/completions", error("busy", 503))
    with pytest.raises(UpstreamError):
        await client.touch("a")
    assert len(stub.seen) == 2


async def test_loading_in_place_says_so(client: VllmClient, stub: Stub) -> None:
    stub.answers("/v1/load_lora_adapter", "Success")
    await client.load_adapter("alias", "/store/a", in_place=True)
    assert stub.seen[0][2] == {"lora_name": "alias", "lora_path": "/store/a", "load_inplace": True}


async def test_health(client: VllmClient, stub: Stub) -> None:
    stub.answers("/health", "")
    assert await client.healthy() is True
    stub.answers("/health", error("dead", 500))
    assert await client.healthy() is False


async def test_a_cancelled_call_is_told_as_such(client: VllmClient, stub: Stub) -> None:
    stub.handlers["/v1/chat/completions"] = hang
    task = asyncio.create_task(client.chat({"messages": []}))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stub.outcomes == [("chat", "cancelled")]


async def test_retries_log_nothing_of_what_is_sent(
    client: VllmClient, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.answers("/v1/chat/completions", error(NEEDLE, 503))
    body = {"messages": [{"role": "user", "content": NEEDLE}]}
    with caplog.at_level(logging.DEBUG), pytest.raises(UpstreamError):
        await QUICK.call(lambda: client.chat(body))
    assert len(stub.seen) == 3
    assert not any(NEEDLE in str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    ("raised", "transient"),
    [
        (UpstreamError("x"), True),
        (UpstreamError("x", 503), True),
        (UpstreamError("x", 429), True),
        (UpstreamError("x", 400), False),
        (UpstreamError("x", 404), False),
        (UpstreamTimeout("x"), False),
        (AdapterError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_only_what_may_pass_by_itself_is_transient(raised: Exception, transient: bool) -> None:
    assert is_transient(raised) is transient
