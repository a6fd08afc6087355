from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tao_daemon.domain.errors import RecordError
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.intake.decoding import MAX_DEPTH, decode

SOURCE = Source("prompts", 3, 17)
NEEDLE = "correct horse battery staple"
CODES = {
    "empty",
    "too_large",
    "not_utf8",
    "not_json",
    "duplicate_key",
    "too_deep",
    "bad_text",
    "bad_number",
    "not_object",
    "no_prompt",
    "bad_messages",
    "bad_prompt",
    "bad_field",
    "bad_header",
}


def read(value: bytes | None, headers: Any = (), max_bytes: int = 65_536) -> Prompt:
    return decode(value, headers, SOURCE, 12.5, max_bytes=max_bytes)


def encoded(request: Any) -> bytes:
    return json.dumps(request).encode()


def chat(*messages: Any, **fields: Any) -> bytes:
    return encoded({"messages": list(messages), **fields})


USER = {"role": "user", "content": "hello"}


def code_of(value: bytes | None, headers: Any = (), max_bytes: int = 65_536) -> str:
    with pytest.raises(RecordError) as caught:
        read(value, headers, max_bytes)
    return caught.value.code


def test_chat_request_keeps_everything_as_sent() -> None:
    request = {"model": "m", "messages": [USER], "temperature": 0.3, "n": 4, "stream": True, "metadata": {"a": [1]}}
    prompt = read(encoded(request), [("tenant", b"acme"), ("conversation", "ü1".encode()), ("other", b"\xff")])
    assert prompt.request == request
    assert (prompt.tenant, prompt.conversation, prompt.subject) == ("acme", "ü1", "")
    assert (prompt.id, prompt.source, prompt.received_at) == (SOURCE.prompt_id, SOURCE, 12.5)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "s"}, USER],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "u"}}],
            }
        ],
        [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, {"role": "tool", "content": "1"}],
        [USER, {"role": "assistant", "content": "a"}, USER],
        [{"role": "system", "content": "everything is in here"}],
    ],
)
def test_accepted_messages(messages: list[Any]) -> None:
    assert read(chat(*messages)).is_chat


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["hello"],
        [{"content": "no role"}],
        [{"role": "robot", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": {"type": "text", "text": "x"}}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 5}]}],
        [{"role": "user", "content": 5}],
        [USER, {"role": "assistant", "content": "said already"}],
        [USER, {"role": "assistant", "content": None}, USER],
        [USER, {"role": "assistant", "tool_calls": []}, USER],
        [USER, {"role": "assistant", "tool_calls": [{"function": {}}]}, USER],
    ],
)
def test_refused_messages(messages: list[Any]) -> None:
    assert code_of(chat(*messages)) == "bad_messages"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\xff\xfe{}", "not_utf8"),
        (b'{"messages":', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"[]", "not_object"),
        (b"null", "not_object"),
        (b'"text"', "not_object"),
        (b"{}", "no_prompt"),
        (b'{"messages": null, "prompt": "x"}', "bad_messages"),
        (b'{"prompt": ""}', "bad_prompt"),
        (b'{"prompt": ["a", "b"]}', "bad_prompt"),
        (b'{"prompt": [1, 2]}', "bad_prompt"),
        (b'{"prompt": "a", "prompt": "b"}', "duplicate_key"),
        (b'{"prompt": "a", "x": {"y": 1, "y": 1}}', "duplicate_key"),
        (b'{"prompt": "a", "temperature": NaN}', "bad_number"),
        (b'{"prompt": "a", "temperature": -Infinity}', "bad_number"),
        (b'{"prompt": "a", "temperature": 1e999}', "bad_number"),
        (b'{"prompt": "a", "seed": 9223372036854775808}', "bad_number"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "bad_number"),
        (b'{"prompt": "a\\u0000b"}', "bad_text"),
        (b'{"prompt": "a\\ud800b"}', "bad_text"),
        (b'{"prompt": "a", "\\uDFFF": 1}', "bad_text"),
        (b'{"prompt": "a", "x": ' + b"[" * 40_000 + b"]" * 20_000 + b"}", "too_deep"),
        (b'{"prompt": "a", "x": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "too_deep"),
        (b'{"prompt": "a", "model": 5}', "bad_field"),
        (b'{"prompt": "a", "max_tokens": 0}', "bad_field"),
        (b'{"prompt": "a", "max_tokens": true}', "bad_field"),
        (b'{"prompt": "a", "top_p": "x"}', "bad_field"),
        (b'{"prompt": "a", "stop": [1]}', "bad_field"),
        (b'{"prompt": "a", "response_format": "json"}', "bad_field"),
        (b'{"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}', "bad_field"),
        (b'{"prompt": "a", "tools": {}}', "bad_field"),
        (b'{"prompt": "a", "tools": [{"type": "function", "function": {}}]}', "bad_field"),
    ],
)
def test_refused_values(value: bytes | None, code: str) -> None:
    assert code_of(value) == code


def test_whole_surrogate_pairs_and_null_fields_pass() -> None:
    assert read(b'{"prompt": "\\ud83d\\ude00", "stop": null, "tools": null, "model": null}').user_text == "😀"


def test_size_limit_is_in_bytes_and_inclusive() -> None:
    value = encoded({"prompt": "x" * 100})
    assert read(value, max_bytes=len(value))
    assert code_of(value, max_bytes=len(value) - 1) == "too_large"


@pytest.mark.parametrize(
    "headers",
    [
        [("tenant", b"x" * 257)],
        [("subject", b"\xff")],
        [("conversation", b"a\x00b")],
        [("tenant", b"a\nb")],
        [("tenant", b"a"), ("tenant", b"b")],
    ],
)
def test_refused_headers(headers: Any) -> None:
    assert code_of(chat(USER), headers) == "bad_header"


def test_missing_header_value_is_empty() -> None:
    assert read(chat(USER), [("tenant", None)]).tenant == ""


@pytest.mark.parametrize(
    "value",
    [
        NEEDLE.encode(),
        chat({"role": NEEDLE, "content": NEEDLE}),
        chat({"role": "user", "content": [{"type": NEEDLE}]}, stop={NEEDLE: NEEDLE}),
        b'{"prompt": "' + NEEDLE.encode() + b'\\ud800"}',
        b'{"prompt": "a", "' + NEEDLE.encode() + b'": 1, "' + NEEDLE.encode() + b'": 1}',
    ],
)
def test_no_message_quotes_the_record(value: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        read(value)
    assert NEEDLE not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "messages": JSON
        | st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": JSON})),
        "prompt": JSON,
        "model": JSON,
        "stop": JSON,
        "tools": JSON,
        "response_format": JSON,
        "max_tokens": JSON,
    },
)


@given(st.binary(max_size=300) | JSON.map(encoded) | ALMOST.map(encoded))
@example(b"\x00")
@example(b"{" * 20_000)
def test_any_bytes_decode_or_are_refused_with_a_known_code(value: bytes) -> None:
    refusal = None
    try:
        prompt = read(value)
    except RecordError as error:
        refusal = error.code
    if refusal is not None:
        assert refusal in CODES
        return
    # what is accepted never trips later code
    prompt.user_text.encode()
    prompt.model.encode()
    assert prompt.system_digest.isalnum() or prompt.system_digest == ""
    assert json.loads(json.dumps(prompt.request, ensure_ascii=False, allow_nan=False)) == prompt.request


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "tool"]), "content": TEXT})


@given(st.lists(MESSAGE, min_size=1, max_size=5), st.booleans())
def test_round_trip(messages: list[dict[str, str]], ascii_only: bool) -> None:
    request = {"messages": messages, "max_tokens": 5}
    value = json.dumps(request, ensure_ascii=ascii_only).encode()
    assert read(value).request == request
