"""Extractors applied to a request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.scoring.extraction import extractor, request_text


def chat(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


PARTS = [
    {"type": "text", "text": "What is"},
    {"type": "image_url", "image_url": {"url": "x"}},
    {"type": "text", "text": "6 * 7?"},
]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")), "c"),
        (chat(("user", PARTS)), "What is\n6 * 7?"),
        (chat(("user", ["a", "b"])), "a\nb"),
        (chat(("system", "s")), None),
        (chat(("user", None)), None),
        (chat(("user", " ")), None),
        (chat(), None),
        ({"prompt": "once"}, "once"),
        ({"prompt": ["once", "upon"]}, "once\nupon"),
        ({"prompt": [1, 2, 3]}, None),
        ({"messages": "x"}, None),
        ({"messages": [1, None, {"role": "user"}]}, None),
        ({}, None),
    ],
)
def test_the_text_of_a_request_is_the_last_user_message_or_the_prompt(
    request_: dict[str, Any], text: str | None
) -> None:
    assert request_text(request_) == text


def test_a_pointer_leads_into_the_request_itself() -> None:
    request = {
        **chat(("user", '{"metadata": 1}')),
        "metadata": {"expected": " yes ", "n": 5, "none": None, "blank": " "},
    }

    def found(spec: str) -> str | None:
        return extractor(spec, timeout_seconds=1.0).from_request(request)

    assert found("json:/metadata/expected") == "yes"
    assert found("json:/metadata/n") == "5"
    assert found("json:/messages/0/role") == "user"
    assert found("json:/metadata/none") is None
    assert found("json:/metadata/blank") is None
    assert found("json:/metadata/absent") is None
    assert found("json:/messages/1") is None


def test_every_other_extractor_reads_the_text() -> None:
    both = extractor("regex:What is (.*)\\?", timeout_seconds=1.0)
    assert both.from_request(chat(("user", "What is 6 * 7?"))) == "6 * 7"
    assert both.from_request(chat(("system", "What is 1?"))) is None
    assert both.from_answer("What is 2?") == "2"


def test_a_value_too_deep_or_too_long_is_none() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert extractor("json:/a", timeout_seconds=1.0).from_request({"a": deep}) is None
    assert extractor("json:/a", timeout_seconds=1.0).from_request({"a": "x" * 300_000}) is None
    while isinstance(deep, list):  # a list this deep cannot be freed in one go everywhere
        deep = deep[0]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "user", "content", "text", "prompt", "a"]), inner, max_size=4
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "a"]), ANYTHING))
@settings(deadline=None)
def test_any_request_gives_a_value_or_none(request: dict[str, Any]) -> None:
    for spec in ("whole", "json:/a", "json:/messages/0/content", "json:"):
        found = extractor(spec, timeout_seconds=1.0).from_request(request)
        assert found is None or (found and found == found.strip())


def test_a_bad_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no extractor 'all'; there are whole"):
        extractor("all", timeout_seconds=1.0)
