"""A prompt as a person reads it: roles and contents; tools and the answer's format in a line. Pure.

The text is a client's: it goes to whoever may read prompts, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tao_daemon.domain.prompt import Prompt

_MAX_SUMMARY = 200
"""Characters of a tool's arguments or a schema's keys that are shown."""


def prompt_text(prompt: Prompt) -> str:
    """`[role]` and the content of each message, in order; for a bare prompt, the prompt itself."""
    request = prompt.request
    if prompt.is_chat:
        messages = request.get("messages")
        parts = [_message(item) for item in messages] if isinstance(messages, list) else []
    else:
        parts = [_content(request.get("prompt"))]
    return "\n\n".join(part for part in (*parts, *_demands(request)) if part)


def _message(message: Any) -> str:
    if not isinstance(message, Mapping):
        return _content(message)
    name = f" {message['name']}" if isinstance(message.get("name"), str) else ""
    lines = [f"[{message.get('role') or 'unknown'}{name}]", _content(message.get("content"))]
    calls = message.get("tool_calls")
    lines += [_call(call) for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return "\n".join(line for line in lines if line)


def _content(content: Any) -> str:
    """OpenAI content: a string, parts, or a list of prompts. What is not text is named by its type."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        if content and all(isinstance(item, int) for item in content):
            return f"({len(content)} token ids)"
        return "\n".join(_content(item) for item in content)
    if isinstance(content, Mapping):
        text = content.get("text")
        return text if isinstance(text, str) else f"({content.get('type') or 'part'})"
    return str(content)


def _call(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, Mapping):
        return "(tool call)"
    return f"(calls {function.get('name')}({_cut(str(function.get('arguments') or ''))}))"


def _demands(request: Mapping[str, Any]) -> list[str]:
    """What the request asks for beside its messages, a line each."""
    found = []
    tools = request.get("tools")
    if isinstance(tools, list) and tools:
        found.append(f"(tools: {_cut(', '.join(_tool(tool) for tool in tools))})")
    wanted = request.get("response_format")
    if isinstance(wanted, Mapping):
        found.append(f"(response_format: {_format(wanted)})")
    return found


def _tool(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return str(function.get("name") or "?") if isinstance(function, Mapping) else "?"


def _format(wanted: Mapping[str, Any]) -> str:
    kind, described = str(wanted.get("type") or "?"), wanted.get("json_schema")
    if not isinstance(described, Mapping):
        return kind
    schema = described.get("schema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    keys = ", ".join(map(str, properties)) if isinstance(properties, Mapping) else json.dumps(schema, sort_keys=True)
    return f"{kind} {described.get('name') or ''}: {_cut(keys)}"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SUMMARY else f"{text[: _MAX_SUMMARY - 1]}…"
