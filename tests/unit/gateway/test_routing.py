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
    RequestRefused,
    Version,
    parse_request,
    plan,
    replica_order,
    rewrite,
)

ADAPTER = Version(Kind.ADAPTER, "r000002-bb", "r000002-bb")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def kinds(routes: Routes, arm: str = "incumbent") -> list[tuple[str, str]]:
    return [(version.kind, version.label) for version in getattr(plan(routes, "served-base"), arm)]


def test_versions_are_the_adapter_then_the_previous_one_then_the_base() -> None:
    assert kinds(Routes(0, None)) == [("base", "base")]
    assert kinds(Routes(1, "a")) == [("adapter", "a"), ("base", "base")]
    assert kinds(Routes(2, "b", "a")) == [("adapter", "b"), ("previous", "a"), ("base", "base")]
    assert kinds(Routes(3, "a", "a")) == [("adapter", "a"), ("base", "base")]
    assert plan(Routes(0, None), "served-base").incumbent[0].model == "served-base"


def test_the_candidates_stand_ins_are_the_incumbents_versions() -> None:
    for routes in (Routes(1, "a", "p"), Routes(0, None), Routes(2, "a", None, "a", 0.5)):
        assert kinds(routes, "candidate") == kinds(routes), "without a candidate there is one arm"
    canary = Routes(3, "a", "p", "c", 0.1)
    assert kinds(canary, "candidate") == [("candidate", "c"), ("adapter", "a"), ("previous", "p"), ("base", "base")]
    assert kinds(canary) == [("adapter", "a"), ("previous", "p"), ("base", "base")]
    assert kinds(Routes(4, None, None, "c", 0.1), "candidate") == [("candidate", "c"), ("base", "base")]
    assert kinds(Routes(5, "a", "c", "c", 0.1), "candidate") == [("candidate", "c"), ("adapter", "a"), ("base", "base")]
    assert plan(Routes(6, "a", unready=("http://r:1/", "http://s:1")), "b").unready == {"http://r:1", "http://s:1"}


def test_on_the_base_model_an_undone_adapter_is_no_stand_in() -> None:
    assert kinds(Routes(4, None, "undone")) == [("base", "base")]


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_a_request_goes_upstream_as_it_came_but_for_the_model(body: dict[str, Any]) -> None:
    raw = json.dumps({**body, "model": "assistant"}).encode()
    assert json.loads(rewritten(raw)) == {**body, "model": "r000002-bb"}


def rewritten(raw: bytes) -> bytes:
    return rewrite(raw, parse_request(raw, "assistant"), ADAPTER)


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        (b'{ "model" : "assistant" , "n":1.0}', b'{ "model" : "r000002-bb" , "n":1.0}'),
        (b'{"n":1.10,"model":null}', b'{"n":1.10,"model":"r000002-bb"}'),
        (b' {"prompt": "x"}', b' {"model":"r000002-bb","prompt": "x"}'),
        (b"{}", b'{"model": "r000002-bb"}'),
        ('{"model":"assistant","prompt":"ü \\"model\\""}'.encode(), None),
        (b'{"x":{"model":"assistant"}}', b'{"model":"r000002-bb","x":{"model":"assistant"}}'),
        (b'{"model":"x","model":"assistant"}', b'{"model": "r000002-bb"}'),
        (b'{"x":{"model":1},"mo\\u0064el":"assistant"}', b'{"x": {"model": 1}, "model": "r000002-bb"}'),
        (b'{"model":"assis\\u0074ant"}', b'{"model":"r000002-bb"}'),
        (b'{"x":"\\ud800","model":"assistant","y":"model"}', None),
    ],
)
def test_only_the_value_of_the_model_is_replaced(raw: bytes, sent: bytes | None) -> None:
    got = rewritten(raw)
    assert sent is None or got == sent
    assert json.loads(got) == {**json.loads(raw), "model": "r000002-bb"}


@given(st.dictionaries(st.sampled_from(["model", "x", "y"]), json_values, max_size=3), st.booleans())
def test_a_model_somewhere_else_in_the_request_is_left_alone(inner: dict[str, Any], named: bool) -> None:
    body: dict[str, Any] = {"a": inner, "model": "assistant", "b": [inner, "model"]}
    if not named:
        del body["model"]
    raw = json.dumps(body, separators=(",", ":")).encode()
    assert json.loads(rewritten(raw)) == {**body, "model": "r000002-bb"}


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
