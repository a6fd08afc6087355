"""Regular expressions from other people: bounded to compile, and bounded to match.

Matching takes a timeout (catastrophic backtracking). Compiling cannot be timed, and the `regex` package unrolls
counted repeats: `((a{1000}){1000}){1000}` takes all memory. So the product of the counts is bounded first.
"""

from __future__ import annotations

from math import prod

import regex

MAX_LENGTH = 2_000
"""Characters of a pattern."""
MAX_UNROLLED = 10_000
"""Product of all lower repeat counts: some 4 MB when compiled. A UUID pattern has 6,144."""

_COUNT = regex.compile(r"\{(\d{1,9})")


def unrolled(pattern: str) -> int:
    """An upper bound on how often anything in the pattern is repeated by counts. Nesting is assumed throughout."""
    return prod(max(1, int(count)) for count in _COUNT.findall(pattern))


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern that is cheap enough. Raises ValueError."""
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"a pattern of {len(pattern)} characters exceeds {MAX_LENGTH}; shorten it")
    if unrolled(pattern) > MAX_UNROLLED:
        raise ValueError(f"a pattern whose repeat counts multiply to more than {MAX_UNROLLED}; use smaller counts")
    try:
        return regex.compile(pattern, cache_pattern=False)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
