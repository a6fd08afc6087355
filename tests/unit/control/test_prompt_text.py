"""A prompt as a person reads it, whatever clients put into requests."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.control.prompt_text import prompt_text
from tao_daemon.domain.prompt import Prompt, Source


def text_of(**request: Any) -> str:
    return prompt_text(Prompt("p", request, Source("t", 0, 0), received_at=0.0))


def test_roles_and_contents_in_order() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "name": "ann", "content": "Why?\nSay."}]
    assert text_of(messages=messages) == "[system]\nBe brief.\n\n[user ann]\nWhy?\nSay."


def test_a_bare_prompt_is_itself() -> None:
    assert text_of(prompt="Once upon") == "Once upon"
    assert text_of(prompt=[1, 2, 3]) == "(3 token ids)"


def test_parts_that_are_no_text_are_named() -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "data:…"}}]
    assert text_of(messages=[{"role": "user", "content": parts}]) == "[user]\nLook:\n(image_url)"


def test_tools_and_formats_are_a_line_each() -> None:
    call = {"type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    schema = {"name": "ticket", "schema": {"type": "object", "properties": {"category": {}, "urgent": {}}}}
    text = text_of(
        messages=[{"role": "assistant", "content": None, "tool_calls": [call]}],
        tools=[{"type": "function", "function": {"name": "find"}}, {"type": "function", "function": {"name": "close"}}],
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert text == (
        '[assistant]\n(calls find({"q": 1}))\n\n(tools: find, close)\n\n'
        "(response_format: json_schema ticket: category, urgent)"
    )


def test_long_schemas_are_cut() -> None:
    properties = {f"key_{n}": {} for n in range(500)}
    text = text_of(
        prompt="x", response_format={"type": "json_schema", "json_schema": {"schema": {"properties": properties}}}
    )
    assert len(text) < 300
    assert text.endswith("…)")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("role", "content", "name", "tool_calls", "type", "function", "text")
MESSAGES = st.lists(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4) | ANYTHING, max_size=3)


@given(
    st.fixed_dictionaries(
        {},
        optional={"messages": MESSAGES | ANYTHING, "prompt": ANYTHING, "tools": ANYTHING, "response_format": ANYTHING},
    )
)
def test_whatever_a_request_holds_has_a_text(request_body: dict[str, Any]) -> None:
    assert isinstance(text_of(**request_body), str)
