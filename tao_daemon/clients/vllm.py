"""Typed HTTP to one vLLM server: inference, adapters, health. Every call has a deadline.

No error holds text of a prompt or completion: what the server says is quoted for administrative routes only.

request → status checked → body parsed → value | UpstreamError
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.domain.errors import UpstreamError, UpstreamTimeout
from tao_daemon.domain.signals import Emit, UpstreamCalled, discard

_CHAT_PATH = "/v1/chat/completions"
_COMPLETIONS_PATH = "/v1/completions"
_TOKENIZE_PATH = "/tokenize"
_WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{[^}]*\})?\s+(\S+)", re.MULTILINE)
_STARTED = re.compile(r"^process_start_time_seconds\s+(\S+)", re.MULTILINE)
_LORA_INFO = "vllm:lora_requests_info"
_LORA_SLOTS = re.compile(rf'^{_LORA_INFO}\{{[^}}\n]*\bmax_lora="(\d+)"', re.MULTILINE)
_PROMPT_PATHS = frozenset({_CHAT_PATH, _COMPLETIONS_PATH, _TOKENIZE_PATH})
_QUOTED_CHARACTERS = 300
_HEALTH_SECONDS = 5.0
_MAX_REPLY_BYTES = 256 * 2**20
"""Above what any call of ours asks for: log-probabilities of 8 completions of 32,768 tokens take about 30 MB."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of /v1/models. `root` is the path it was loaded from; `parent` is None for a base model."""

    name: str
    root: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """What /metrics says of the process behind it. None: it does not say."""

    started_at: float | None
    """Unix seconds; another value is another process."""
    lora_enabled: bool | None
    lora_slots: int | None
    """--max-loras; said from the first request of the process on."""


@dataclass(frozen=True, slots=True)
class _Call:
    operation: str
    method: str
    path: str
    seconds: float
    body: Mapping[str, Any] | None = None


class VllmClient:
    """One server at `base_url` (without /v1). The session belongs to the caller."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        session: aiohttp.ClientSession,
        inference_seconds: float = 300.0,
        admin_seconds: float = 60.0,
        load_seconds: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
        emit: Emit = discard,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = session
        self._inference_seconds = inference_seconds
        self._admin_seconds = admin_seconds
        self._load_seconds = load_seconds
        self._retry = retry
        self._emit = emit

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /v1/chat/completions, not streamed. Not retried here: the caller knows what a repeat costs."""
        return await self._json(_Call("chat", "POST", _CHAT_PATH, self._inference_seconds, body))

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /v1/completions, not streamed. Not retried here: the caller knows what a repeat costs."""
        return await self._json(_Call("complete", "POST", _COMPLETIONS_PATH, self._inference_seconds, body))

    async def tokenize(self, body: Mapping[str, Any]) -> tuple[int, ...]:
        """POST /tokenize: token ids of a conversation through the chat template, or of a bare prompt. Asked once."""
        call = _Call("tokenize", "POST", _TOKENIZE_PATH, self._admin_seconds, body)
        tokens = (await self._json(call)).get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise UpstreamError(f"{self.base_url}{call.path} gave no tokens; is it vLLM?")
        return tuple(tokens)

    async def prompt_logprobs(self, model: str, sequences: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], ...]:
        """Log-probability (nats) of each token given those before it: one value fewer than tokens, per sequence.

        Value i belongs to token i + 1; the first token has none. vLLM gives the unprocessed values,
        whatever the temperature or --logprobs-mode.
        """
        # 0 asks for no alternatives: each position then holds the prompt's own token alone.
        prompts = [list(sequence) for sequence in sequences]
        body = {"model": model, "prompt": prompts, "max_tokens": 1, "prompt_logprobs": 0}
        call = _Call("prompt_logprobs", "POST", _COMPLETIONS_PATH, self._admin_seconds, body)
        answer = await self._retry.call(lambda: self._json(call))
        return _own_logprobs(answer, sequences, f"{self.base_url}{call.path}")

    async def models(self) -> tuple[ServedModel, ...]:
        """What /v1/models lists: base models and loaded adapters."""
        call = _Call("models", "GET", "/v1/models", self._admin_seconds)
        answer = await self._retry.call(lambda: self._json(call))
        try:
            return tuple(
                ServedModel(str(card["id"]), str(card.get("root") or ""), card.get("parent")) for card in answer["data"]
            )
        except (KeyError, TypeError, AttributeError):
            url = f"{self.base_url}{call.path}"
            raise UpstreamError(f"{url} does not answer like vLLM; check the URL") from None

    async def load_adapter(self, name: str, path: str, in_place: bool = False) -> None:
        """Load an adapter from an absolute path as the server sees it. Loaded already from there is fine.

        `in_place` replaces what the name stands for; vLLM before 0.33 then reads the files at every step.
        """
        body = {"lora_name": name, "lora_path": path} | ({"load_inplace": True} if in_place else {})
        call = _Call("load_adapter", "POST", "/v1/load_lora_adapter", self._load_seconds, body)
        try:
            await self._retry.call(lambda: self._text(call))
        except UpstreamError as error:
            # Asking twice is 400, also after an answer that was lost; so is a name in use for something else.
            if error.status != 400 or not await self._is_loaded(name, path):
                raise

    async def unload_adapter(self, name: str) -> None:
        """Drop an adapter's name; a name that the server does not know is fine."""
        body = {"lora_name": name}
        call = _Call("unload_adapter", "POST", "/v1/unload_lora_adapter", self._admin_seconds, body)
        try:
            await self._retry.call(lambda: self._text(call))
        except UpstreamError as error:
            # A server without runtime LoRA updates has no such route, and answers 404 too: nothing to unload.
            if error.status != 404:
                raise

    async def can_load_adapters(self) -> bool:
        """Whether adapters can be loaded at runtime: the route exists. Changes nothing, as no adapter is named."""
        body = {"lora_name": "", "lora_path": ""}
        call = _Call("probe_loading", "POST", "/v1/load_lora_adapter", self._admin_seconds, body)
        try:
            await self._retry.call(lambda: self._text(call))
        except UpstreamError as error:
            if error.status in (404, 405):
                return False
            if error.status != 400:
                raise
        return True

    async def touch(self, model: str) -> None:
        """One token by the model: its adapter is then the one last used, and the last to be evicted. Asked once."""
        body = {"model": model, "prompt": [1], "max_tokens": 1}
        await self._json(_Call("touch", "POST", _COMPLETIONS_PATH, self._admin_seconds, body))

    async def healthy(self) -> bool:
        """Whether GET /health answers 200 within seconds. Never raises UpstreamError."""
        try:
            await self._text(_Call("health", "GET", "/health", min(_HEALTH_SECONDS, self._admin_seconds)))
        except UpstreamError:
            return False
        return True

    async def waiting_requests(self) -> int:
        """Requests that wait in the server's own queue, over all its engines."""
        call = _Call("metrics", "GET", "/metrics", self._admin_seconds)
        counts = _WAITING.findall(await self._retry.call(lambda: self._text(call)))
        if not counts:
            raise UpstreamError(
                f"{self.base_url}{call.path} has no vllm:num_requests_waiting; is --disable-log-stats set?"
            )
        found = [_value(count) for count in counts]
        if None in found:
            raise UpstreamError(f"{self.base_url}{call.path} has a vllm:num_requests_waiting that is no number")
        return int(sum(count or 0.0 for count in found))

    async def metrics(self) -> ServerMetrics:
        """When the process started, and how many adapters it can hold."""
        call = _Call("metrics", "GET", "/metrics", self._admin_seconds)
        return _server_metrics(await self._retry.call(lambda: self._text(call)))

    async def version(self) -> str:
        """The server's version, such as 0.32.0."""
        call = _Call("version", "GET", "/version", self._admin_seconds)
        return str((await self._retry.call(lambda: self._json(call))).get("version", ""))

    async def _is_loaded(self, name: str, path: str) -> bool:
        return any(model.name == name and model.root == path for model in await self.models())

    async def _json(self, call: _Call) -> dict[str, Any]:
        text = await self._text(call)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            url = f"{self.base_url}{call.path}"
            raise UpstreamError(f"{call.method} {url} answered no JSON object; check the URL")
        return value

    async def _text(self, call: _Call) -> str:
        started, outcome = time.monotonic(), "cancelled"
        try:
            text = await self._exchange(call)
            outcome = "ok"
            return text
        except UpstreamTimeout:
            outcome = "timeout"
            raise
        except UpstreamError as error:
            outcome = "unreachable" if error.status is None else f"http_{error.status // 100}xx"
            raise
        finally:
            self._emit(UpstreamCalled(call.operation, outcome, time.monotonic() - started))

    async def _exchange(self, call: _Call) -> str:
        url = f"{self.base_url}{call.path}"
        try:
            async with self._session.request(
                call.method,
                url,
                json=call.body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=call.seconds),
                allow_redirects=False,
            ) as response:
                text = await _bounded(response)
                status = response.status
        except TimeoutError:
            raise UpstreamTimeout(f"{call.method} {url} did not answer within {call.seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            # The class alone: an aiohttp message may quote what was received.
            raise UpstreamError(f"cannot reach {call.method} {url}: {type(error).__name__}") from None
        if text is None:
            limit = f"{_MAX_REPLY_BYTES / 2**20:g} MiB"
            raise UpstreamError(f"{call.method} {url} answers with more than {limit}; check the URL", status)
        if status != 200:
            raise UpstreamError(f"{call.method} {url} answered {status}: {_said(call, text)}", status)
        return text


async def _bounded(response: aiohttp.ClientResponse) -> str | None:
    """The body, or None where it is longer than a reply may be."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_REPLY_BYTES:
            return None
    return body.decode(errors="replace")


def _said(call: _Call, text: str) -> str:
    if call.path in _PROMPT_PATHS:
        return "its message is withheld, it may quote the prompt; see the server's own log"
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        text = json.loads(text)["error"]["message"]
    return " ".join(str(text).split())[:_QUOTED_CHARACTERS] or "(no message)"


def _server_metrics(text: str) -> ServerMetrics:
    started = _STARTED.search(text)
    slots = [int(found) for found in _LORA_SLOTS.findall(text)]
    # Without any metric of vLLM's (--disable-log-stats) the absence of one means nothing.
    enabled = True if _LORA_INFO in text else False if "vllm:" in text else None
    return ServerMetrics(_value(started[1]) if started else None, enabled, min(slots, default=None))


def _value(written: str) -> float | None:
    """A sample's value; None for what is no finite number."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(written)):
            return value
    return None


def _own_logprobs(
    answer: Mapping[str, Any], sequences: Sequence[Sequence[int]], url: str
) -> tuple[tuple[float, ...], ...]:
    """Each sequence's own token at each position after the first, of `[None, {"id": {"logprob": …}}, …]`."""
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        values = tuple(
            tuple(
                float(position[str(token)]["logprob"])
                for position, token in zip(choice["prompt_logprobs"][1:], sequence[1:], strict=True)
            )
            for choice, sequence in zip(choices, sequences, strict=True)
        )
    except (KeyError, IndexError, TypeError, ValueError):
        raise UpstreamError(f"{url} gave no prompt_logprobs for the tokens asked; is it vLLM?") from None
    if not all(math.isfinite(value) for row in values for value in row):
        raise UpstreamError(f"{url} gave log-probabilities that are not finite; its weights are broken")
    return values
