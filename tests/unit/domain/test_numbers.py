"""Numbers in prose: what is read, what is not, and in what time."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.numbers import MAX_DIGITS, last_number, only_number, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-5", -5),
        ("−5", -5),
        ("–5", -5),
        ("1,234.50", Fraction("1234.5")),
        ("1\u202f234\u202f%", Fraction("12.34")),
        ("1 234", 1),
        ("1{,}234", 1234),
        ("12,34", 12),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("1 3/4", Fraction(7, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"2\frac{1}{2}", Fraction(5, 2)),
        ("12%", Fraction(12, 100)),
        ("12.5 percent", Fraction(125, 1000)),
        (r"12\%", Fraction(12, 100)),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("1.5 × 10^3", 1500),
        (r"1.5 \times 10^{-3}", Fraction(15, 10_000)),
        ("1.5*10**2", 150),
        ("$1,234.50", Fraction("1234.5")),
        ("-$5", -5),
        ("$-5", -5),
        (r"\$5", 5),
        ("€ 7", 7),
        ("5 m^2", 5),
        ("x = 42 apples", 42),
        ("5km", 5),
        ("答案是5", 5),
        ("5-3", 5),
        ("007", 7),
        ("", None),
        ("none", None),
        ("H2O", None),
        ("1/0", None),
        ("1e999", None),
        ("9" * (MAX_DIGITS + 1), None),
    ],
)
def test_the_first_number_is_read_exactly(text: str, value: Fraction | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("First 6 * 7, so the answer is 42.", "42"),
        ("It is −$1,234.50!", "-$1,234.50"),
        ("5-3 = 2", "2"),
        ("5-3", "3"),
        ("half, that is 1/2", "1/2"),
        ("about 12 % of them", "12 %"),
        ("version 3.14.15", "3.14"),
        ("on 3/4/2024", "3"),
        ("1. one\n2. two", "2"),
        ("no number, H2O", None),
        ("", None),
    ],
)
def test_the_last_number_is_taken_as_it_is_written(text: str, found: str | None) -> None:
    assert last_number(text) == found


@pytest.mark.parametrize(
    ("text", "value"), [("1,000", 1000), (" $5 ", 5), ("50%", Fraction(1, 2)), ("5 apples", None), ("5 6", None)]
)
def test_only_a_number_is_only_a_number(text: str, value: Fraction | None) -> None:
    assert only_number(text) == value


@given(st.integers(-(10**20), 10**20), st.integers(0, 6))
def test_a_number_that_was_formatted_is_read_back(scaled: int, places: int) -> None:
    value = Fraction(scaled, 10**places)
    whole, rest = divmod(abs(scaled), 10**places)
    digits = f".{rest:0{places}d}" if places else ""
    sign = "-" if scaled < 0 else ""
    for text in (
        f"{sign}{whole}{digits}",
        f"{sign}{whole:,}{digits}",
        f"{sign}${whole:,}{digits}",
        f"The answer: {sign}{whole}{digits}.",
    ):
        found = last_number(text)
        assert found is not None
        assert parse_number(found) == parse_number(text) == value
    assert only_number(f"{sign}{whole:,}{digits}%") == value / 100


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_back(value: float) -> None:
    assert parse_number(repr(value)) == Fraction(repr(value))


@given(st.text() | st.text(alphabet="0123456789,./-+eE% $x^*\\{}frac"))
@settings(max_examples=400)
def test_any_text_has_a_number_or_none(text: str) -> None:
    found = last_number(text)
    if found is None:
        assert parse_number(text) is None
    else:
        assert last_number(found) == found
    if only_number(text) is not None:
        assert only_number(text) == parse_number(text)


@pytest.mark.parametrize(
    "unit",
    ["1", "1,", "111,", "1 ", "1/", "1.", "-", "$", "1e", "1 x 10^", "1x10^{", r"\frac{1}{1}", r"\frac{", "{,}", "%"],
)
def test_long_texts_take_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    last_number(text)
    parse_number(text)
    only_number(text)
    assert time.process_time() - started < 3
