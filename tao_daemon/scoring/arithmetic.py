"""The exact value of an arithmetic expression that somebody wrote into a prompt. Pure; nothing is ever run as code.

    sum      = term (("+" | "-") term)*
    term     = signed (("*" | "×" | "x" | "·" | "/" | "÷" | "//" | "%" | "mod" | "of") signed)*
    signed   = ("-" | "+")* power
    power    = postfix (("**" | "^") signed)?
    postfix  = (number | "(" sum ")") "%"*

As in Python, -2 ** 2 is -4, 2 ** 3 ** 2 is 512, and // and % round down. A "%" before a number or a parenthesis is the
remainder; any other is a percent sign (hundredths), so 15% of 80 is 12. Numbers are decimal, with thousands separators.
A trailing "=", "?" or "." is left out. Length, nesting, and the size of every intermediate value are bounded.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARACTERS = 1_000
MAX_DEPTH = 50
"""Parentheses, signs and powers inside each other."""
MAX_BITS = 8_192
"""Of a numerator and a denominator."""

_PLAIN = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "^": "**", "\u00a0": " "})
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<sign>\*\*|//|[-+*/%()]|x(?![a-z])|of\b|mod\b))",
    re.IGNORECASE,
)
_TIMES = frozenset({"*", "x", "of"})


class _NoValue(Exception):
    """Not an expression of this grammar, or beyond its bounds."""


def evaluate(expression: str) -> Fraction | None:
    """The expression's value; None for what is no expression, has no rational value, or is beyond the bounds."""
    if len(expression) > MAX_CHARACTERS:
        return None
    try:
        return _Reader(_tokens(expression)).value()
    except (_NoValue, ZeroDivisionError):
        return None


def _tokens(expression: str) -> list[str]:
    text = expression.translate(_PLAIN).replace("**", " ** ").rstrip().rstrip("=?. \t\n")
    tokens: list[str] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise _NoValue
        tokens.append(found.group().strip().lower())
        place = found.end()
    return tokens


class _Reader:
    """Reads tokens from left to right; each method reads one rule of the grammar and gives its value."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._place = 0

    def value(self) -> Fraction:
        value = self._sum(0)
        if self._next():
            raise _NoValue
        return value

    def _next(self, ahead: int = 0) -> str:
        place = self._place + ahead
        return self._tokens[place] if place < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next()
        self._place += 1
        return token

    def _sum(self, depth: int) -> Fraction:
        value = self._term(depth)
        while self._next() in ("+", "-"):
            value = _bounded(value + self._term(depth) if self._take() == "+" else value - self._term(depth))
        return value

    def _term(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while self._next() in _TIMES or self._next() in ("/", "//", "%", "mod"):
            sign = self._take()
            by = self._signed(depth)
            if sign in _TIMES:
                value = value * by
            elif sign == "/":
                value = value / by
            else:
                value = Fraction(value // by) if sign == "//" else value % by
            _bounded(value)
        return value

    def _signed(self, depth: int) -> Fraction:
        if self._next() not in ("-", "+"):
            return self._power(depth)
        return self._signed(_deeper(depth)) if self._take() == "+" else -self._signed(_deeper(depth))

    def _power(self, depth: int) -> Fraction:
        base = self._postfix(depth)
        if self._next() != "**":
            return base
        self._take()
        exponent = self._signed(_deeper(depth))
        # The result's size is known before it is computed.
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or bits * abs(exponent.numerator) > MAX_BITS:
            raise _NoValue
        return Fraction(base**exponent.numerator)

    def _postfix(self, depth: int) -> Fraction:
        token = self._take()
        if token == "(":
            value = self._sum(_deeper(depth))
            if self._take() != ")":
                raise _NoValue
        elif token[:1].isdigit() or token[:1] == ".":
            value = _bounded(Fraction(token.replace(",", "")))
        else:
            raise _NoValue
        while self._next() == "%" and not self._starts_operand(self._next(1)):
            self._take()
            value = value / 100
        return value

    @staticmethod
    def _starts_operand(token: str) -> bool:
        return token == "(" or token[:1].isdigit() or token[:1] == "."


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise _NoValue
    return depth + 1


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NoValue
    return value
