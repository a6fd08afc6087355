"""Extractors of an answer's text: what they find, what they refuse, and their bounds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.clients.extraction import MAX_CHARACTERS, text_extractor, timed_extractor

TICKET = 'Sure:\n```json\n{"a": {"b/c": [10, {"~": "x"}]}, "n": null, "t": true, "s": " hi "}\n```\nDone.'


@pytest.mark.parametrize(
    ("spec", "text", "found"),
    [
        ("whole", " a\nb \n", "a\nb"),
        ("whole", " \n", None),
        ("last_line", "a\n b \n \n", "b"),
        ("last_line", "", None),
        ("last_number", "6 * 7 = 42.", "42"),
        ("last_number", "none", None),
        ("boxed", r"so \boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{a\boxed{b}c}", r"a\boxed{b}c"),
        ("boxed", r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("boxed", r"} \boxed {5} {", "5"),
        ("boxed", r"\boxed{1} and \boxed{2", "1"),
        ("boxed", r"\\boxed{1}", "1"),
        ("boxed", r"\boxed{ }", None),
        ("boxed", "5", None),
        ("code", "x\n```sql\nselect 1\n```\ny\n```\nselect 2\n\n```\nz", "select 2"),
        ("code", "```\nunclosed\n", "unclosed"),
        ("code", "````\n```\nb\n```\n````", "```\nb\n```"),
        ("code", "~~~\na\n```\n~~~", "a\n```"),
        ("code", " 1. so\n   ```python\n   f()\n   ```", "f()"),
        ("code", "select 1", "select 1"),
        ("code", "```select 1```", "```select 1```"),
        ("code", "```\n```", None),
        ("after:Answer:", "Answer: 1\nAnswer: 2\nso it is", "2\nso it is"),
        ("after:Answer:", "answer: 1", None),
        ("after:Answer:", "Answer:", None),
        ("after:Answer:", "**Answer:** 4", "4"),
        ("after:Answer:", "**Answer: 4**", "4"),
        ("after:Answer:", "Answer: **4**", "**4**"),
        ("after:####", "work\n#### 42", "42"),
        ("after:a:b", "a:b c", "c"),
        ("json:/a/b~1c/0", TICKET, "10"),
        ("json:/a/b~1c/1/~0", TICKET, "x"),
        ("json:/a", TICKET, '{"b/c":[10,{"~":"x"}]}'),
        ("json:/n", TICKET, "null"),
        ("json:/t", TICKET, "true"),
        ("json:/s", TICKET, "hi"),
        ("json:/s/0", TICKET, None),
        ("json:/a/b~1c/2", TICKET, None),
        ("json:/a/b~1c/01", TICKET, None),
        ("json:/a/b~1c/-", TICKET, None),
        ("json:/missing", TICKET, None),
        ("json:", "[1, 2]", "[1,2]"),
        ("json:", '{"ä": 1}', '{"ä":1}'),
        ("json:", '"just text"', "just text"),
        ("json:/", '{"": 5}', "5"),
        ("json:/a", "not json", None),
        ("regex:a(b+)(c)?", "xabbc abc", "bb"),
        ("regex:b+", "xabb", "bb"),
        ("regex:a|(b)", "a", None),
        ("regex:z", "a", None),
    ],
)
def test_what_an_extractor_finds(spec: str, text: str, found: str | None) -> None:
    assert text_extractor(spec)(text) == found


@pytest.mark.parametrize(
    "spec", ["", "everything", "after:", "after: ", "regex:", "wholes", "whole:", "json", "jsonx:/a"]
)
def test_an_unknown_extractor_is_refused_with_the_list_of_those_there_are(spec: str) -> None:
    with pytest.raises(ValueError, match=r"after:TEXT.*json:/pointer.*regex:PATTERN") as refused:
        text_extractor(spec)
    assert repr(spec) in str(refused.value)


@pytest.mark.parametrize("spec", ["json:a", "json:/~2", "json:/a~", "regex:[", "regex:(?:a{200}){200}"])
def test_a_bad_argument_is_refused_with_its_reason(spec: str) -> None:
    with pytest.raises(ValueError, match=r"pointer|regular|counts") as refused:
        text_extractor(spec)
    assert repr(spec) in str(refused.value)


SPECS = ["whole", "last_line", "last_number", "boxed", "code", "after:A", "json:", "json:/a/0", "regex:(a)|b"]
MARKS = st.text(alphabet='ab{}[]\\`~*_A:"0,\n ') | st.lists(
    st.sampled_from(["\\boxed{", "```", "~~~", "{", "}", "\n", '{"a":', "[", "]", "**", "A", "1", "\\"])
).map("".join)


@given(spec=st.sampled_from(SPECS), text=st.text() | MARKS)
@settings(max_examples=500, deadline=None)
def test_any_text_gives_a_value_without_blank_ends_or_none(spec: str, text: str) -> None:
    found = text_extractor(spec)(text)
    assert found is None or (found and found == found.strip())


@given(st.text())
@settings(deadline=None)
def test_any_spec_is_an_extractor_or_refused(spec: str) -> None:
    try:
        extract = text_extractor(spec)
    except ValueError:
        return
    extract("some text")


KEYS = st.text(alphabet="ab/~01", max_size=3)


@given(
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
)
@settings(deadline=None)
def test_every_value_is_at_its_pointer(value: Any) -> None:
    def visit(node: Any, pointer: str) -> None:
        found = text_extractor(f"json:{pointer}")(json.dumps(value))
        assert found is not None
        assert json.loads(found) == node
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            visit(child, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")

    visit(value, "")


@given(
    st.recursive(
        st.text(alphabet="ab 1"), lambda inner: st.lists(inner, max_size=3).map(lambda p: "{" + "".join(p) + "}")
    )
)
def test_whatever_balanced_is_boxed_comes_out(inside: str) -> None:
    assert text_extractor("boxed")(f"x \\boxed{{{inside}}} y") == (inside.strip() or None)


def test_a_text_beyond_the_bound_has_no_value() -> None:
    assert text_extractor("whole")("a" * MAX_CHARACTERS) is not None
    assert text_extractor("whole")("a" * (MAX_CHARACTERS + 1)) is None


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "unit", ["\\boxed{", "{", "[", "```\n", "`", "~", '{"a":', "\n", "A", "**", "\\", " ", "[]", '"']
)
def test_hostile_texts_end_in_time(spec: str, unit: str) -> None:
    text = unit * (MAX_CHARACTERS // len(unit))
    started = time.process_time()
    text_extractor(spec)(text)
    assert time.process_time() - started < 3


def test_a_pattern_that_backtracks_without_end_is_told_or_finds_nothing() -> None:
    spec, text = "regex:^(a|aa)+$", "a" * 60 + "b"
    started = time.process_time()
    with pytest.raises(TimeoutError):
        timed_extractor(spec, timeout_seconds=0.1)(text)
    assert text_extractor(spec)(text) is None
    assert time.process_time() - started < 5
