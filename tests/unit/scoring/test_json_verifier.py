"""The graded JSON score: its formula, and its safety with hostile schemas and answers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tao_daemon.scoring.json_schema import SafeSchema
from tao_daemon.scoring.json_verifier import JsonVerifier
from tao_daemon.scoring.verifier import Failure

TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {"category": {"enum": ["billing", "delivery"]}, "urgent": {"type": "boolean"}},
    "required": ["category", "urgent"],
    "additionalProperties": False,
}


def check(schema: Any, text: str, seconds: float = 5.0) -> Any:
    return JsonVerifier(schema, timeout_seconds=seconds).check(text)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"category": "billing", "urgent": true}', 1.0),
        ('\n {"urgent": false, "category": "delivery"} ', 1.0),
        ('{"category": "billing", "urgent": true, "extra": 1}', 0.9),
        ('{"category": "billing", "urgent": "yes"}', 0.6),
        ('{"category": "billing"}', 0.6),
        ("{}", 0.3),
        ('[{"category": "billing", "urgent": true}]', 0.3),
        ('Sure! {"category": "billing", "urgent": true}', 0.5),
        ('```json\n{"category": "billing", "urgent": true}\n```', 0.5),
        ('{} and then {"category": "billing"}', 0.3),
        ("I think {braces} are nice: {}", 0.1),
        ("billing, urgent", 0.0),
        ("42", 0.0),
        ('{"category": NaN, "urgent": true}', 0.0),
        ('{"category": 1e999, "urgent": true}', 0.0),
        ('{"category": "billing", "urgent": true', 0.0),
        ("", 0.0),
    ],
)
def test_the_grades_are_as_documented(text: str, score: float) -> None:
    assert check(TICKET, text) == pytest.approx(score)


def test_a_scalar_schema_is_met_by_a_scalar_only() -> None:
    assert check({"type": "integer"}, "42") == 1.0
    assert check({"type": "integer"}, "42 apples") == 0.0


def test_without_required_keys_every_known_key_counts() -> None:
    schema = {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    assert check(schema, '{"a": 1, "b": "x"}') == pytest.approx(0.6)


# --- properties ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
KEYWORDS = ["type", "properties", "required", "items", "enum", "pattern", "patternProperties", "$ref", "anyOf",
            "additionalProperties", "uniqueItems", "multipleOf", "$id", "not", "minLength", "$defs"]  # fmt: skip
HOSTILE = JSON | st.dictionaries(
    st.sampled_from(KEYWORDS),
    JSON | st.sampled_from(["object", "#", "#/$defs/a", "http://x/y", "(a+)+$", "[", 0.1]),
    max_size=5,
)


@given(schema=HOSTILE, text=st.text(max_size=40) | JSON.map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_any_schema_is_refused_with_a_value_error_or_scores_any_text(schema: Any, text: str) -> None:
    try:
        verifier = JsonVerifier(schema, timeout_seconds=1.0)
    except ValueError:
        return
    score = verifier.check(text)
    assert isinstance(score, Failure) or 0.0 <= score <= 1.0


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "category": st.sampled_from(["billing", "delivery", "other", 1]),
        "urgent": st.sampled_from([True, False, 0, "true"]),
        "extra": st.integers(),
    },
)


@given(value=VALUES | JSON, prefix=st.sampled_from(["", " ", "\n", "x", "- "]))
@settings(max_examples=200, deadline=None)
def test_one_means_valid_and_only_that(value: Any, prefix: str) -> None:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        text = json.dumps(value)
        assert check(TICKET, text) != 1.0
        return
    valid = Draft202012Validator(TICKET).is_valid(value) and not prefix.strip()
    assert (check(TICKET, prefix + text) == 1.0) == valid


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_arbitrary_text_scores_within_bounds(text: str) -> None:
    assert 0.0 <= check(TICKET, text) < 1.0


# --- safety ----------------------------------------------------------------------------------------------------


def test_catastrophic_backtracking_ends_in_time() -> None:
    started = time.process_time()
    answer = json.dumps("a" * 40 + "b" * 2)
    assert check({"type": "string", "pattern": "^(a|aa)+$"}, answer, seconds=0.2) is Failure.TIMEOUT
    assert time.process_time() - started < 5


def test_an_exponential_schema_ends_in_time() -> None:
    steps = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**steps, "d40": {"type": "string"}}}
    assert check(schema, "1", seconds=0.2) is Failure.TIMEOUT


def test_a_pattern_that_would_take_all_memory_to_compile_is_refused() -> None:
    with pytest.raises(ValueError, match="counts"):
        SafeSchema({"pattern": "((a{1000}){1000}){1000}"})


@pytest.mark.parametrize(
    "pattern",
    ["((a{0000001000}){0000001000})", "(?x)((a{ 1000}){ 1000})", "a{2}(?R)?", "(?:abc){e<=3}", "(a)" * 30, "(?#x)a"],
    ids=["leading zeros", "verbose", "recursion", "approximate", "many groups", "comment"],
)
def test_of_a_schemas_pattern_only_plain_syntax_is_taken(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"a pattern (with|whose|is)"):
        SafeSchema({"items": {"patternProperties": {pattern: True}}})


def test_many_small_pattern_bombs_are_refused_in_all() -> None:
    with pytest.raises(ValueError, match="in all"):
        SafeSchema({"patternProperties": {f"{n}a{{900}}": True for n in range(9)}})


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#"}, {"uniqueItems": True}, {"multipleOf": 0.1}],
    ids=["endless reference", "quadratic comparison", "overflow"],
)
def test_what_the_validator_cannot_decide_is_a_failure(schema: Any) -> None:
    text = {"uniqueItems": json.dumps([1, []] * 1000), "multipleOf": "1" + "0" * 400}.get(next(iter(schema)), "1")
    assert check(schema, text) is Failure.ERROR


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"properties": {"a": {"items": {"$ref": "file:///etc/passwd"}}}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "#/$defs/missing"},
        {"$dynamicRef": "http://127.0.0.1:9/x"},
    ],
)
def test_a_reference_to_elsewhere_is_refused_at_once(schema: Any) -> None:
    with pytest.raises(ValueError, match="inline it"):
        SafeSchema(schema)


def test_a_remote_reference_is_never_fetched() -> None:
    """Nothing connects: the address would hang or be recorded if it did."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/s"
        for schema in ({"$ref": address}, {"$schema": address, "type": "object"}, {"$id": address, "type": "object"}):
            try:
                check(schema, "{}")
            except ValueError:
                continue
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$id": "https://e.org/x", "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, '"s"'),
        ({"$ref": "y", "$defs": {"a": {"$id": "y", "type": "string"}}}, '"s"'),
        ({"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "string"}}}, '"s"'),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"pattern": "^s"}}}, '"s"'),
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, '{"x1": 1}'),
        ({"additionalProperties": {"type": "integer"}, "properties": {"a": True}}, '{"a": "s", "b": 1}'),
        ({"pattern": r"^\p{Lu}"}, '"Ärger"'),
    ],
)
def test_references_inside_the_schema_and_our_own_keywords_work(schema: Any, text: str) -> None:
    assert check(schema, text) == 1.0


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"patternProperties": {"^x": {"type": "integer"}}}, '{"x1": "s"}'),
        ({"patternProperties": {"^x": True}, "additionalProperties": False}, '{"y": 1}'),
        ({"additionalProperties": {"type": "integer"}}, '{"b": "s"}'),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"pattern": "^s"}}}, '["x"]'),
        ({"uniqueItems": True}, "[1, 1]"),
    ],
)
def test_our_own_keywords_refuse_too(schema: Any, text: str) -> None:
    expected = '["x"]' in text  # a pattern says nothing of an array
    assert (check(schema, text) == 1.0) == expected


def test_nesting_is_bounded() -> None:
    tree = {"$ref": "#/$defs/t", "$defs": {"t": {"properties": {"c": {"$ref": "#/$defs/t"}}}}}
    assert check(tree, '{"c":' * 60 + "{}" + "}" * 60) == 1.0
    assert check(tree, '{"c":' * 70 + "{}" + "}" * 70) == 0.0
    assert check(tree, "[" * 100_000) == 0.0


@pytest.mark.parametrize("schema", [3, "x", {"type": "objekt"}, {"pattern": "["}, {"required": "a"}, []])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SafeSchema(schema)
