"""The shapes of requests that later rooms may rely on: OpenAI chat and completions bodies.

Invariant: only what the sampler, the scorers or the prompt's own text would trip over is refused; other fields pass
as they are (`n`, `stream`, unknown ones).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tao_daemon.domain.errors import RecordError

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_LIMITS = ("max_tokens", "max_completion_tokens")


def check_request(request: Mapping[str, Any]) -> None:
    """Raise RecordError unless the request is one that can be sampled, scored and answered."""
    if "messages" in request:
        _check_messages(request["messages"])
    elif "prompt" in request:
        _check_bare_prompt(request["prompt"])
    else:
        raise RecordError("no_prompt", "the request has neither messages nor prompt")
    _check_fields(request)


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise _bad_messages("messages must be a list with at least one message")
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _bad_messages(f"messages[{place}] must be an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise _bad_messages(f"messages[{place}].role must be one of {', '.join(sorted(ROLES))}")
        _check_content(message, role, place)
    if messages[-1]["role"] == "assistant":
        raise _bad_messages("the last message is the assistant's, which leaves the model nothing to answer")


def _check_content(message: Mapping[str, Any], role: str, place: int) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, list):
        _check_parts(content, place)
    elif content is not None or role != "assistant" or not _calls_tools(message, place):
        raise _bad_messages(
            f"messages[{place}].content must be text or a list of parts; only an assistant's tool calls may have none"
        )


def _check_parts(parts: list[Any], place: int) -> None:
    if not parts:
        raise _bad_messages(f"messages[{place}].content is an empty list of parts")
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise _bad_messages(f"messages[{place}].content has a part without a type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise _bad_messages(f"messages[{place}].content has a text part without text")


def _calls_tools(message: Mapping[str, Any], place: int) -> bool:
    calls = message.get("tool_calls")
    if calls is None:
        return isinstance(message.get("function_call"), dict)
    if not isinstance(calls, list) or not all(_has_function_name(call) for call in calls):
        raise _bad_messages(f"messages[{place}].tool_calls must be a list of calls with function names")
    return bool(calls)


def _has_function_name(item: Any) -> bool:
    function = item.get("function") if isinstance(item, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str) and bool(function["name"])


def _check_bare_prompt(prompt: Any) -> None:
    if not isinstance(prompt, str) or not prompt:
        raise RecordError(
            "bad_prompt", "prompt must be non-empty text; lists and token ids are not one production input"
        )


def _check_fields(request: Mapping[str, Any]) -> None:
    if not isinstance(request.get("model"), str | None):
        raise _bad_field("model", "text")
    for name in _NUMBERS:
        if not _is_number(request.get(name)):
            raise _bad_field(name, "a number")
    for name in _LIMITS:
        limit = request.get(name)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise _bad_field(name, "a positive integer")
    stop = request.get("stop")
    if not (isinstance(stop, str | None) or (isinstance(stop, list) and all(isinstance(s, str) for s in stop))):
        raise _bad_field("stop", "text or a list of texts")
    _check_response_format(request.get("response_format"))
    tools = request.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(_is_tool(tool) for tool in tools)):
        raise _bad_field("tools", "a list of tools, each with a type, functions with a name")


def _check_response_format(wanted: Any) -> None:
    if wanted is None:
        return
    if not isinstance(wanted, dict) or not isinstance(wanted.get("type"), str):
        raise _bad_field("response_format", "an object with a type")
    if wanted["type"] == "json_schema":
        named = wanted.get("json_schema")
        if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
            raise _bad_field("response_format.json_schema", "an object with a schema")


def _is_tool(tool: Any) -> bool:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        return False
    if tool["type"] != "function":
        return True
    return _has_function_name(tool) and isinstance(tool["function"].get("parameters"), dict | None)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _bad_messages(message: str) -> RecordError:
    return RecordError("bad_messages", message)


def _bad_field(name: str, wanted: str) -> RecordError:
    return RecordError("bad_field", f"{name} must be {wanted}")
