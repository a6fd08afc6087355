"""The graded JSON score: its formula, and its safety with hostile schemas and answers."""

from __future__ import annotations

import json
import time
from itertools import combinations
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
    [{"$ref": "#"}, {"multipleOf": 0.1}],
    ids=["endless reference", "overflow"],
)
def test_what_the_validator_cannot_decide_is_a_failure(schema: Any) -> None:
    text = {"multipleOf": "1" + "0" * 400}.get(next(iter(schema)), "1")
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


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
EVIL = "^(a|aa)+$"
SLOW = "a" * 26 + "b"
"""To match against EVIL: half a second of `re`, which has no deadline and stops every thread."""
DEEP = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}", "$dynamicRef": f"#/$defs/d{n + 1}"} for n in range(40)}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$schema": DRAFT, "pattern": EVIL}, SLOW),
        ({"$schema": DRAFT, "properties": {"a": {"$ref": "#"}}, "pattern": EVIL}, {"a": SLOW}),
        ({"properties": {"a": {"$schema": DRAFT, "pattern": EVIL}}}, {"a": SLOW}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$schema": DRAFT_7, "pattern": EVIL}}}, SLOW),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$schema": DRAFT_7, "prefixItems": [{"pattern": EVIL}]}}}, [SLOW]),
        ({"$ref": "a", "$defs": {"a": {"$id": "a", "$schema": DRAFT_7, "pattern": EVIL}}}, SLOW),
        ({"$schema": DRAFT, "$dynamicAnchor": "m", "items": {"$dynamicRef": "#m"}, "pattern": EVIL}, [SLOW]),
        ({"$ref": "#/x", "x": {"$schema": DRAFT, "not": {"$schema": DRAFT, "pattern": EVIL}}}, SLOW),
        ({"$id": DRAFT, "$ref": DRAFT + "#/x", "x": {"$schema": DRAFT, "pattern": EVIL}}, SLOW),
    ],
)  # fmt: skip
def test_a_part_that_names_a_dialect_ends_in_time_too(schema: Any, value: Any) -> None:
    assert check(schema, json.dumps(value), seconds=0.05) is Failure.TIMEOUT


@pytest.mark.parametrize("known", [DRAFT, DRAFT_7, "http://json-schema.org/schema#"])
def test_a_reference_to_a_known_dialect_is_one_to_elsewhere(known: str) -> None:
    with pytest.raises(ValueError, match="inline it"):
        SafeSchema({"properties": {"a": {"$schema": DRAFT, "$ref": known}}})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"unevaluatedProperties": False, "allOf": [{"patternProperties": {EVIL: True}}]}, {SLOW: 1}),
        ({"unevaluatedProperties": False, "$ref": "#/$defs/a", "$defs": {"a": {"patternProperties": {EVIL: True}}}},
         {SLOW: 1}),
        ({"unevaluatedProperties": False, "$ref": "#/$defs/d0", "$defs": DEEP | {"d40": {}}}, {"a": 1}),
        ({"unevaluatedItems": False, "$ref": "#/$defs/d0", "$defs": DEEP | {"d40": {"items": True}}}, [1] * 50_000),
        ({"unevaluatedProperties": False, "allOf": [{"$ref": "#/$defs/a"}] * 2000, "$defs": {"a": {"properties":
         {str(n): {"$ref": "#/$defs/b"} for n in range(300)}}, "b": {}}}, {str(n): 1 for n in range(900)}),
        ({"anyOf": [{"type": "integer"}] * 2500}, ["x" * 50_000] * 3),
        ({"oneOf": [{"items": {"type": "string"}}] * 2500}, ["x"] * 40_000),
    ],
    ids=["patterns in a part", "patterns behind a reference", "exponential", "exponential items", "many evaluated",
         "long errors", "many choices"],
)  # fmt: skip
def test_no_keyword_outlasts_the_deadline(schema: Any, value: Any) -> None:
    verifier, text = JsonVerifier(schema, timeout_seconds=0.1), json.dumps(value)
    started = time.process_time()
    verifier.check(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"unevaluatedProperties": False, "allOf": [{"$ref": "#"}]},
        {"$id": "http://e.org/a", "not": {"$ref": "a"}},
        {"$dynamicAnchor": "m", "if": {"$dynamicRef": "#m"}},
        {"$ref": "y", "$defs": {"x": {"$id": "y", "$ref": "y"}}},
    ],
)
def test_an_endless_reference_is_a_failure_wherever_the_stack_ends(schema: Any) -> None:
    """Not the panic of the library's maps, which is no Exception."""
    verifier = JsonVerifier(schema, timeout_seconds=5.0)

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else verifier.check('{"a": 1}')

    assert {deeper(levels) for levels in range(40)} == {Failure.ERROR}


@pytest.mark.parametrize("keyword", ["not", "anyOf", "properties", "const"])
def test_a_schema_nested_too_deeply_is_refused(keyword: str) -> None:
    schema: Any = {"type": "integer"}
    for _ in range(70):
        schema = {keyword: {"properties": {"a": schema}, "anyOf": [schema]}.get(keyword, schema)}
    with pytest.raises(ValueError, match="too deeply"):
        SafeSchema(schema)


def test_unique_items_are_found_in_linear_time() -> None:
    items: list[Any] = [{"a": [1] * 60, "b": n} for n in range(999)]
    colliding = [n * (2**61 - 1) for n in range(8000)]
    for value in (items, colliding, [[n, []] for n in range(15_000)]):
        started = time.process_time()
        assert check({"uniqueItems": True}, json.dumps(value)) == 1.0
        assert check({"uniqueItems": True}, json.dumps([*value, value[0]])) == 0.3
        assert time.process_time() - started < 2


@given(st.lists(JSON | st.sampled_from([1, 1.0, True, "1", None, "None", [1], [1.0], [True], {"a": 1}, {"a": 1.0}])))
@settings(max_examples=200, deadline=None)
def test_unique_is_what_no_other_item_is_equal_to(items: list[Any]) -> None:
    try:
        text = json.dumps(items, allow_nan=False)
    except ValueError:
        return
    values = json.loads(text)
    # The library's own uniqueItems overlooks [[1], [true], [1]].
    equal = any(Draft202012Validator({"const": one}).is_valid(other) for one, other in combinations(values, 2))
    assert (check({"uniqueItems": True}, text) == 1.0) == (not equal)


PARTS = st.recursive(
    st.sampled_from([True, False, {}, {"type": "integer"}, {"required": ["a"]}, {"properties": {"a": {}}},
                     {"patternProperties": {"^b": {"type": "integer"}}}, {"additionalProperties": {"type": "integer"}},
                     {"prefixItems": [{"type": "integer"}]}, {"contains": {"type": "string"}}, {"minItems": 2},
                     {"items": {"type": "integer"}}, {"$ref": "#/$defs/x"}, {"uniqueItems": True}]),
    lambda part: st.fixed_dictionaries({}, optional={
        "allOf": st.lists(part, min_size=1, max_size=2), "anyOf": st.lists(part, min_size=1, max_size=3),
        "oneOf": st.lists(part, min_size=1, max_size=3), "if": part, "then": part, "else": part, "not": part,
        "dependentSchemas": st.fixed_dictionaries({"a": part}), "properties": st.fixed_dictionaries({"b": part}),
        "unevaluatedProperties": st.sampled_from([False, {"type": "string"}]),
        "unevaluatedItems": st.sampled_from([False, {"type": "string"}]),
    }),
    max_leaves=8,
)  # fmt: skip
SMALL = st.dictionaries(st.sampled_from(["a", "b", "bb", "c"]), st.sampled_from([1, "x"])) | st.lists(
    st.sampled_from([1, "x", 2]), max_size=3
)


@given(schema=PARTS, definition=PARTS, value=SMALL)
@settings(max_examples=400, deadline=None)
def test_our_own_keywords_decide_as_the_library_does(schema: Any, definition: Any, value: Any) -> None:
    if not isinstance(schema, dict):
        return
    schema = {**schema, "$defs": {"x": json.loads(json.dumps(definition).replace("$ref", "$other"))}}
    expected = Draft202012Validator(schema).is_valid(value)
    assert (check(schema, json.dumps(value)) == 1.0) == expected


def test_a_schema_of_many_anchors_is_followed_in_time() -> None:
    names = [f"a{n}" for n in range(400)]
    schema = {"$defs": {a: {"$anchor": a} for a in names}, "allOf": [{"$ref": f"#{a}"} for a in names]}
    started = time.process_time()
    assert check(schema, "1") == 1.0
    assert time.process_time() - started < 1


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
