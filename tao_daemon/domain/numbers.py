"""Numbers as people and models write them, read exactly. Pure.

Read: signs (-, −), thousands separators (1,234, or a thin space), decimals (.5), 1e-3 and 1.5 × 10^3, 3/4 and 1 3/4
and \\frac{3}{4}, a currency sign before the number, a percent sign after it (hundredths), units around it. A number
glued to a letter before it (H2O) is not one. Magnitudes are bounded, so all arithmetic on what is read is cheap.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 300
"""Digits of one literal."""
MAX_EXPONENT = 400
"""Largest power of ten, either way."""

_PLAIN = str.maketrans("−﹣－–×\u00a0\u202f\u2009", "----x   ")
_THIN = re.compile("(?<=[0-9])[\u202f\u2009](?=[0-9]{3})")
_LATEX = ((r"{,}", ","), (r"\,", ""), (r"\$", "$"), (r"\%", "%"), (r"\times", "x"), (r"\cdot", "x"), (r"\!", ""))
_FRAC = re.compile(r"(?P<whole>\d)?\\[dt]?frac\{(?P<over>-?\d+)\}\{(?P<under>\d+)\}")

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?<!\w)(?<!\d\.)(?<!\d/)                            # not inside a word, a version or a date
    (?P<sign>(?<![\w)\]}}])-)?                          # 5-3 subtracts
    (?:[$€£¥]\ ?(?P<inner>-)?)?
    (?:
        (?:(?P<whole>\d{{1,9}})\ )?(?P<over>\d+)/(?P<under>\d+)(?![\d/]|\.\d)
      | (?P<decimal>{_DECIMAL})
        (?:[eE](?P<exponent>[+-]?\d{{1,4}})(?!\w)|\ ?[x*]\ ?10\ ?(?:\^|\*\*)\ ?\{{?(?P<power>[+-]?\d{{1,4}})(?!\d)\}}?)?
    )
    (?P<percent>\ ?(?:%|percent\b))?
    """,
    re.VERBOSE | re.ASCII,
)


def last_number(text: str) -> str | None:
    """The last number in the text, as it is written there but for plain signs; None without one."""
    found = None
    for found in _NUMBER.finditer(_plain(text)):  # noqa: B007
        pass
    return None if found is None else found.group().strip()


def parse_number(text: str) -> Fraction | None:
    """The value of the first number in the text; None without one, or for one beyond the bounds."""
    found = _NUMBER.search(_plain(text))
    return None if found is None else _value(found)


def only_number(text: str) -> Fraction | None:
    """The value of a text that is one number without unit and nothing else; None for any other."""
    found = _NUMBER.fullmatch(_plain(text).strip())
    return None if found is None else _value(found)


def _plain(text: str) -> str:
    text = _THIN.sub(",", text).translate(_PLAIN)
    if "\\" in text or "{,}" in text:
        for latex, plain in _LATEX:
            text = text.replace(latex, plain)
        text = _FRAC.sub(lambda m: f"{m['whole'] + ' ' if m['whole'] else ''}{m['over']}/{m['under']}", text)
    return text


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found.group()) > MAX_DIGITS:
        return None
    exponent = int(found["exponent"] or found["power"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    if found["decimal"] is not None:
        value = Fraction(found["decimal"].replace(",", "")) * Fraction(10) ** exponent
    elif int(found["under"]) == 0:
        return None
    else:
        value = int(found["whole"] or 0) + Fraction(int(found["over"]), int(found["under"]))
    if found["percent"]:
        value /= 100
    return -value if found["sign"] or found["inner"] else value
