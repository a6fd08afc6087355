"""Typed HTTP to one server whose model scores: OpenAI's chat completions, vLLM's pooling and score APIs.

Every call has a deadline, every answer a largest size; what may pass by itself is tried again. No error holds text
that was sent or received.

request → status checked → body bounded and parsed → value | UpstreamError
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout

REFUSALS = (400, 413, 422)
"""The server answers and does not take this question: it is too long, or asks for what the server has not."""
MAX_REPLY_BYTES = 4 << 20
MAX_TOKENS = 1 << 31
"""Of one request; a server that says it counted more is not believed."""
_CHUNK_BYTES = 64 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that ended: what it took and what it cost."""

    seconds: float
    failed: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    text: str = field(repr=False)
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class _Call:
    path: str
    body: Mapping[str, Any] = field(repr=False)
    seconds: float


Told = Callable[[Exchange], None]
"""Told of every request that ended, each try by itself."""


class ScoringServer:
    """One server at `base_url` (without /v1). The session belongs to the caller.

    All raise UpstreamError; `seconds` is the deadline of one try.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        session: aiohttp.ClientSession,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = session
        self._retry = retry

    async def chat(self, body: Mapping[str, Any], seconds: float, failed: Told) -> ChatReply:
        """POST /v1/chat/completions; the first choice, "" when it has no text. Told are only the requests that failed:
        what became of a reply, who asked knows."""

        def read(answer: Mapping[str, Any]) -> str:
            content = answer["choices"][0]["message"].get("content")
            return content if isinstance(content, str) else ""

        return ChatReply(*await self._retried(_Call("/v1/chat/completions", body, seconds), read, failed))

    async def pooling(self, body: Mapping[str, Any], seconds: float, told: Told) -> list[float]:
        """POST /pooling: the last value of each output, in the order of the inputs. Not finite is possible."""

        def read(answer: Mapping[str, Any]) -> list[float]:
            return [_last_value(row["data"]) for row in _in_order(answer["data"])]

        values, exchange = await self._retried(_Call("/pooling", body, seconds), read, told)
        told(exchange)
        return values

    async def score(self, body: Mapping[str, Any], seconds: float, told: Told) -> list[float]:
        """POST /score: one score per pair, in the order of the pairs. Not finite is possible."""

        def read(answer: Mapping[str, Any]) -> list[float]:
            return [_number(row["score"]) for row in _in_order(answer["data"])]

        values, exchange = await self._retried(_Call("/score", body, seconds), read, told)
        told(exchange)
        return values

    async def _retried(self, call: _Call, read: Callable[[Mapping[str, Any]], T], failed: Told) -> tuple[T, Exchange]:
        return await self._retry.call(lambda: self._post(call, read, failed))

    async def _post(self, call: _Call, read: Callable[[Mapping[str, Any]], T], failed: Told) -> tuple[T, Exchange]:
        url = f"{self._base_url}{call.path}"
        started = time.monotonic()
        try:
            answer = await self._exchange(url, call)
            return _read(url, answer, read), Exchange(time.monotonic() - started, failed=False, **_usage(answer))
        except UpstreamError:
            failed(Exchange(time.monotonic() - started, failed=True))
            raise

    async def _exchange(self, url: str, call: _Call) -> dict[str, Any]:
        try:
            async with self._session.post(
                url,
                json=call.body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=call.seconds),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    # Its message is withheld, it may quote the prompt.
                    raise UpstreamError(f"POST {url} answered {response.status}; see its own log", response.status)
                content = await _bounded(response, url)
        except TimeoutError:
            raise UpstreamTimeout(f"POST {url} did not answer within {call.seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            # The class alone: an aiohttp message may quote what was received.
            raise UpstreamError(f"cannot reach {url}: {type(error).__name__}") from None
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise UpstreamError(f"POST {url} answered no JSON object; check the URL", 200)
        return value


def _read(url: str, answer: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        return read(answer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        raise UpstreamError(f"{url} does not answer as it should; check the URL and what it serves", 200) from None


async def _bounded(response: aiohttp.ClientResponse, url: str) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            raise UpstreamError(f"POST {url} answered more than {MAX_REPLY_BYTES} bytes; check the URL", 200)
    return bytes(content)


def _usage(answer: Mapping[str, Any]) -> dict[str, int]:
    """What the server says it counted; 0 where it does not, or says what cannot be."""
    usage = answer.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    return {
        key: value if isinstance(value := counts.get(key), int) and 0 <= value <= MAX_TOKENS else 0
        for key in ("prompt_tokens", "completion_tokens")
    }


def _in_order(rows: Any) -> Sequence[Mapping[str, Any]]:
    ordered = sorted(rows, key=lambda row: int(row["index"]))
    if [row["index"] for row in ordered] != list(range(len(ordered))):
        raise ValueError("rows are missing")
    return ordered


def _last_value(data: Any) -> float:
    """Of one vector, or of one per token: the reward of the whole is at its end."""
    last = data[-1]
    return _number(last[-1] if isinstance(last, list) else last)


def _number(value: Any) -> float:
    """JSON has no NaN: servers write null for it."""
    return math.nan if value is None else float(value)
