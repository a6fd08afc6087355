"""What a pattern takes to compile is bounded before it is compiled."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.clients.patterns import MAX_GROUPS, MAX_UNROLLED, compile_pattern, compile_plain, unrolled

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (UUID, "0b8d3e14-8b64-412a-80c9-25afb66df5a0"),
        (r"^\d{1,3}(?:,\d{3})*$", "1,234,567"),
        (r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$", "a.b@example.co.uk"),
        (r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$", "10.0.0.255"),
        (r"^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(T[\d:]{5,8}(Z|[+-]\d{2}:?\d{2}))?$", "2026-02-03T10:00Z"),
        (r"(?i:x)(?=\p{Lu})(?<name>\p{L}+)(?P=name)?[^]\[]{2}", "XAbc12"),
        (r'^\{"[a-z]{1,20}": .{0,4000}\}$', '{"key": 1}'),
        ("(?i-x)a+?b*+c{,3}d{2,}", "ABCDD"),
    ],
)
def test_everyday_patterns_are_taken_from_anybody(pattern: str, text: str) -> None:
    assert compile_plain(pattern).search(text)
    assert unrolled(pattern) < 250


@pytest.mark.parametrize(
    "pattern",
    [
        "((a{0000001000}){0000001000})",
        "(?:a{200}){200}",
        "(?:a{200}){200,}",
        "(?:a{200}){200,900}?",
        "(?:a{200}+){200}+",
        "(?:a{200}){1}{200}",
        "(?:a{200})(?i){200}",
        "(?:a{200})(?#so){200}",
        "(?:" * 14 + "ab" + "){2}" * 14,
        "(?:" * 14 + "ab" + "){1,3}" * 14,
        "(?:" * 14 + "ab" + ")+" * 14,
        "(?:" + "ab|cd|" * 100 + "ef){50}",
        r"(?:\p{200}){200}",
        r"(?:[[:a]{200}){200}",
        "a{99999999999999999999}",
    ],
)
def test_what_unrolls_to_too_much_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="unroll to more"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(?x)((a{ 1000}){ 1000})", "(?ix:a{ 9})", "(?i)(?sx-m)a", "(?x-i:a)"])
def test_verbose_patterns_are_refused_because_spaces_hide_counts(pattern: str) -> None:
    for taken in (compile_pattern, compile_plain):
        with pytest.raises(ValueError, match="verbose"):
            taken(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["a{1}(?R)?", "(a)(?1)", "(?<n>a)(?&n)", "(?:abc){e<=2}", "(?:abc){1<=e<=2}", "(?:abc){i}", "(a)(?(1)b|c)",
     "(?|a|b)", "a(*PRUNE)b", "(?V1)[a--b]", "(?V1:[a--b])", "(?#b)a", "[[:alpha:]]", "(?r)a", "(?b)a"],
)  # fmt: skip
def test_the_operator_may_write_what_anybody_may_not(pattern: str) -> None:
    assert compile_pattern(pattern)
    with pytest.raises(ValueError, match="a pattern with"):
        compile_plain(pattern)


def test_groups_are_bounded_because_every_place_they_match_is_remembered() -> None:
    assert compile_plain("(?:(?=a)a)(?<!b)" * 30 + "(c)" * MAX_GROUPS)
    with pytest.raises(ValueError, match="groups"):
        compile_plain("(?<a>a)" + "(c)" * MAX_GROUPS)


@pytest.mark.parametrize("pattern", ["[", "(", "a)", "\\", "(?P<a", r"\p{1}", r"\L<a>", "a**", "(" * 900 + ")" * 900])
def test_whatever_the_parser_says_is_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|regular"):
        compile_pattern(pattern)


PIECES = [
    *["a", "(", "(?:", "(?i:", "(?=", "(?>", "(?<=", "(?i)", "(?-i)", ")", ")", ")", "|", "[a-z]", "[^]x]", "[\\]]"],
    *["[[a]", "]", "{100}", "{0100}", "{1000,}", "{1,3}", "{,9}", "{2}", "{1}", "{10}?", "{10}+", "+", "*", "?"],
    *["\\p{Lu}", "\\p{100}", "\\p{", "\\(", "\\[", "{", "}", "^", ".", "\\1", "x{9999}", " ", "-"],
]


@given(st.lists(st.sampled_from(PIECES), max_size=20), st.integers(0, 6))
@settings(max_examples=500, deadline=None)
def test_what_anybody_may_write_takes_little_memory(pieces: list[str], closed: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pattern = "".join(pieces) + ")" * closed
    try:
        compile_plain(pattern)
    except ValueError:
        return
    assert unrolled(pattern) <= MAX_UNROLLED
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10
