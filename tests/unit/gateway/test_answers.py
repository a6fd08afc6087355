"""Reading an answer: the model's name is replaced, its end is noted, generated text is never taken for structure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.gateway.answers import MAX_LINE_BYTES, AnswerReader

MODEL = "r000002-bb"


def event(model: str, content: str, **choice: Any) -> bytes:
    chunk = {"id": "c", "model": model, "choices": [{"delta": {"content": content}, **choice}]}
    return b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


@given(st.lists(st.text(), min_size=1, max_size=5), st.lists(st.integers(1, 40), min_size=1), st.booleans())
def test_a_stream_is_renamed_however_it_is_cut_into_chunks(contents: list[str], sizes: list[int], crlf: bool) -> None:
    stream = b"".join(event(MODEL, content) for content in contents) + b"data: [DONE]\n\n"
    expected = b"".join(event("assistant", content) for content in contents) + b"data: [DONE]\n\n"
    if crlf:
        stream, expected = stream.replace(b"\n", b"\r\n"), expected.replace(b"\n", b"\r\n")
    reader, out, position, turn = AnswerReader(MODEL, "assistant"), b"", 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        out += reader.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert out + reader.flush() == expected
    assert reader.tokens == len(contents)
    assert not reader.truncated


@given(st.text())
def test_text_that_looks_like_structure_is_not_touched_and_not_counted(text: str) -> None:
    content = (
        f'{{"model":"{MODEL}"}} {text} "model": "{MODEL}" "finish_reason":"length" "completion_tokens":9\n'
        'data: {"finish_reason": "length"}\ndata: x'
    )
    answer = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "model": MODEL}
    reader = AnswerReader(MODEL, "assistant")
    assert json.loads(reader.whole(json.dumps(answer).encode())) == {**answer, "model": "assistant"}
    assert (reader.truncated, reader.tokens) == (False, 0)
    reader = AnswerReader(MODEL, "assistant")
    assert reader.feed(event(MODEL, content)) == event("assistant", content)
    assert (reader.truncated, reader.tokens) == (False, 1)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_answer_tells_how_it_ended(separators: tuple[str, str]) -> None:
    choices = [{"finish_reason": "stop"}, {"finish_reason": "length"}]
    answer = {"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 17}, "model": MODEL}
    reader = AnswerReader(MODEL, "assistant")
    reader.whole(json.dumps(answer, separators=separators).encode())
    assert (reader.truncated, reader.tokens) == (True, 17)


def test_a_stream_tells_how_it_ended() -> None:
    reader = AnswerReader(MODEL, "assistant")
    for part in (event(MODEL, "a"), event(MODEL, "", finish_reason="length")):
        reader.feed(part)
    assert (reader.truncated, reader.tokens) == (True, 2)
    reader.feed(b'data: {"choices":[],"usage":{"completion_tokens":41}}\n\ndata: [DONE]\n\n')
    assert reader.tokens == 41, "usage counts better than events"


def test_an_error_in_a_stream_is_seen_and_one_in_the_text_is_not() -> None:
    reader = AnswerReader(MODEL, "assistant")
    reader.feed(event(MODEL, '\ndata: {"error": {}}', error=None))
    assert not reader.failed
    reader.feed(b'data: {"error": {"message": "engine died"}}\n\ndata: [DONE]\n\n')
    assert reader.failed


def test_names_with_signs_of_regular_expressions_and_quotes_pass() -> None:
    name, public = r"a\1.*[x]", 'the "best" \\ model'
    body = json.dumps({"model": name, "other": "r"}).encode()
    assert json.loads(AnswerReader(name, public).whole(body)) == {"model": public, "other": "r"}


def test_a_complete_line_is_passed_on_at_once_and_an_endless_one_does_not_fill_memory() -> None:
    reader = AnswerReader(MODEL, "assistant")
    assert reader.feed(event(MODEL, "x")) == event("assistant", "x")
    endless = b"x" * (MAX_LINE_BYTES + 1)
    assert reader.feed(endless) == endless
    assert reader.flush() == b""
