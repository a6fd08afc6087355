"""Routing: the public name resolves to one version, and nothing else of a request or an answer changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.rollout import Routes
from tao_daemon.gateway.routing import (
    Kind,
    ModelRenamer,
    RequestRefused,
    Version,
    parse_request,
    replica_order,
    rewrite,
    routes_from_json,
    routes_to_json,
    versions,
)

ADAPTER = Version(Kind.ADAPTER, "r000002-bb", "r000002-bb")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def kinds(routes: Routes) -> list[tuple[str, str]]:
    return [(version.kind, version.label) for version in versions(routes, "served-base")]


def test_versions_are_the_adapter_then_the_previous_one_then_the_base() -> None:
    assert kinds(Routes(0, None)) == [("base", "base")]
    assert kinds(Routes(1, "a")) == [("adapter", "a"), ("base", "base")]
    assert kinds(Routes(2, "b", "a")) == [("adapter", "b"), ("previous", "a"), ("base", "base")]
    assert kinds(Routes(3, "a", "a")) == [("adapter", "a"), ("base", "base")]
    assert versions(Routes(0, None), "served-base")[0].model == "served-base"


def test_on_the_base_model_an_undone_adapter_is_no_stand_in() -> None:
    assert kinds(Routes(4, None, "undone")) == [("base", "base")]


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_a_request_goes_upstream_as_it_came_but_for_the_model(body: dict[str, Any]) -> None:
    raw = json.dumps({**body, "model": "assistant"}).encode()
    sent = json.loads(rewrite(parse_request(raw, "assistant"), ADAPTER))
    assert sent == {**body, "model": "r000002-bb"}


def test_a_request_without_a_model_is_for_the_public_one() -> None:
    assert json.loads(rewrite(parse_request(b'{"prompt": "x"}', "assistant"), ADAPTER))["model"] == "r000002-bb"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": "assistant", "temperature": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b'{"model": "base"}', 404),
        (b'{"model": "r000002-bb"}', 404),
        (b'{"model": ["assistant"]}', 404),
        (b'{"model": ""}', 404),
    ],
)
def test_what_is_not_for_the_public_model_is_refused_without_quoting_it(raw: bytes, status: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_request(raw, "assistant")
    assert refused.value.status == status
    assert "r000002" not in str(refused.value)


def test_replicas_are_tried_by_rest_then_load_then_turn() -> None:
    assert replica_order([0, 0, 0], [False] * 3, 1) == [1, 2, 0]
    assert replica_order([0, 0, 0], [False] * 3, 2) == [2, 0, 1]
    assert replica_order([2, 0, 1], [False] * 3, 0) == [1, 2, 0]
    assert replica_order([2, 0, 1], [False, True, False], 0) == [2, 0, 1]
    assert replica_order([5], [True], 7) == [0]


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_equal_replicas_share_the_work(count: int, start: int) -> None:
    firsts = [replica_order([0] * count, [False] * count, start + turn)[0] for turn in range(count)]
    assert sorted(firsts) == list(range(count))


def event(model: str, content: str) -> bytes:
    chunk = {"id": "c", "model": model, "choices": [{"delta": {"content": content}}]}
    return b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5), st.lists(st.integers(1, 40), min_size=1), st.booleans())
def test_a_stream_is_renamed_however_it_is_cut_into_chunks(contents: list[str], sizes: list[int], crlf: bool) -> None:
    stream = b"".join(event(ADAPTER.model, content) for content in contents) + b"data: [DONE]\n\n"
    expected = b"".join(event("assistant", content) for content in contents) + b"data: [DONE]\n\n"
    if crlf:
        stream, expected = stream.replace(b"\n", b"\r\n"), expected.replace(b"\n", b"\r\n")
    renamer, out, position, turn = ModelRenamer(ADAPTER, "assistant"), b"", 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        out += renamer.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert out + renamer.flush() == expected


@settings(deadline=None)
@given(st.text())
def test_an_answer_that_talks_about_the_model_field_is_not_touched(text: str) -> None:
    content = f'{{"model":"{ADAPTER.model}"}} {text} "model": "{ADAPTER.model}"'
    body = json.dumps({"choices": [{"message": {"content": content}}], "model": ADAPTER.model}).encode()
    renamed = json.loads(ModelRenamer(ADAPTER, "assistant").whole(body))
    assert renamed == {"choices": [{"message": {"content": content}}], "model": "assistant"}


def test_a_complete_line_is_passed_on_at_once_and_an_endless_one_does_not_fill_memory() -> None:
    renamer = ModelRenamer(ADAPTER, "assistant")
    assert renamer.feed(event(ADAPTER.model, "x")) == event("assistant", "x")
    endless = b"x" * (ModelRenamer.MAX_LINE_BYTES + 1)
    assert renamer.feed(endless) == endless
    assert renamer.flush() == b""


@settings(deadline=None)
@given(st.integers(0, 10**9), st.none() | st.text(min_size=1), st.none() | st.text(min_size=1))
def test_routes_survive_json(generation: int, adapter: str | None, previous: str | None) -> None:
    routes = Routes(generation, adapter, previous)
    assert routes_from_json(json.dumps(routes_to_json(routes)).encode()) == routes


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"generation": -1}',
        b'{"generation": true}',
        b'{"generation": 1, "adapter": 7}',
        b'{"generation": 1, "adapter": ""}',
        b"\xff",
    ],
)
def test_broken_routes_are_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        routes_from_json(raw)
