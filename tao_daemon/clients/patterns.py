"""Regular expressions from other people: bounded to compile, and bounded to match.

Matching takes a timeout (catastrophic backtracking). Compiling cannot be timed, and the `regex` package unrolls
counted repeats: `((a{1000}){1000}){1000}` takes all memory. So what a pattern unrolls to is counted first, by a
scanner that knows as much of the syntax as that takes. `compile_plain` refuses whatever would lead it astray.
"""

from __future__ import annotations

import regex

MAX_LENGTH = 2_000
"""Characters of a pattern."""
MAX_UNROLLED = 10_000
"""Parts of a compiled pattern, repeats unrolled: some 7 MB. A UUID pattern has 100."""
MAX_GROUPS = 20
"""Capturing groups of a plain pattern: matching remembers every place that each has matched."""

_VERBOSE = "is verbose; write it without spaces and comments, and without the flag x"
_TOKEN = regex.compile(
    r"""(?xs)
      (?P<skip> \(\?\#(?:\\.|[^\\)])*\) | \(\?[a-zA-Z01]*(?:-[a-zA-Z]+)?\) )    # a comment, flags
    | (?P<open> (?!\(\?P=)\((?:\?(?:[:=!>|]|<[=!]|P?<\w+>|[a-zA-Z01]*(?:-[a-zA-Z]+)?:))? )
    | (?P<close> \) )
    | (?P<count> [*+?] | \{(?:[0-9]+(?:,[0-9]*)?|,[0-9]*)\} )
    | (?P<set> \[\^?\]?(?:\\.|[^\\\]])*\] )
    | (?P<one> \(\?P=\w+\) | \\[pPN]\{(?=[^}]*[a-zA-Z])\^?[a-zA-Z0-9_ &.:=/-]*\} | \\. | . )
    """
)
_VERBOSE_FLAG = regex.compile(r"\(\?[a-zA-Z01]*x")
_PLAIN_FLAGS = regex.compile(r"\(\?[aimsu]*(?:-[aimsux]+)?[:)]")
_FUZZY = regex.compile(r"\{[0-9deis]")


def unrolled(pattern: str) -> int:
    """About how many parts the pattern has when all its repeats are unrolled, rather too many than too few."""
    outside: list[int] = []
    size = last = 0
    for token in _TOKEN.finditer(pattern):
        match token.lastgroup:
            case "open":
                outside.append(size)
                size = last = 0
            case "close":
                last = size + 1
                size = (outside.pop() if outside else 0) + last
            case "count":
                size += last * (_copies(token[0]) - 1)
                last *= _copies(token[0])
            case "set" | "one":
                last = 1 + len(token[0]) // 4
                size += last
    return size + sum(outside)


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern of the operator's that is cheap enough. Raises ValueError."""
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"a pattern of {len(pattern)} characters exceeds {MAX_LENGTH}; shorten it")
    if any(token.lastgroup in ("skip", "open") and _VERBOSE_FLAG.match(token[0]) for token in _TOKEN.finditer(pattern)):
        raise ValueError(f"a pattern {_VERBOSE}")
    if unrolled(pattern) > MAX_UNROLLED:
        raise ValueError(f"a pattern whose repeat counts unroll to more than {MAX_UNROLLED} parts; use smaller counts")
    try:
        return regex.compile(pattern, cache_pattern=False)
    except Exception as error:  # noqa: BLE001
        # Its parser raises more than its own error: RecursionError, OverflowError, ZeroDivisionError for \p{nv=1/0} …
        raise ValueError(f"not a regular expression: {error}") from None


def compile_plain(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern of anybody's: no more than the syntax that most dialects share. Raises ValueError."""
    groups = 0
    for token in _TOKEN.finditer(pattern) if len(pattern) <= MAX_LENGTH else ():
        refused = _refused(token, pattern)
        if refused:
            raise ValueError(f"a pattern {refused}")
        groups += token[0] == "(" or (token[0].endswith(">") and token[0] != "(?>")
    if groups > MAX_GROUPS:
        raise ValueError(f"a pattern with more than {MAX_GROUPS} groups; write (?:…) where nothing is captured")
    return compile_pattern(pattern)


def _refused(token: regex.Match[str], pattern: str) -> str | None:
    text, at = token[0], token.start()
    match token.lastgroup:
        case "skip" | "open" if _VERBOSE_FLAG.match(text):
            return _VERBOSE
        case "skip" if not _PLAIN_FLAGS.fullmatch(text):
            return "with a comment, or flags other than a, i, m, s and u"
        case "open" if text == "(" and pattern[at + 1 : at + 2] in ("?", "*"):
            return "with a group of an unusual kind: recursion, a condition or a verb"
        case "open" if text == "(?|" or (text.endswith(":") and not _PLAIN_FLAGS.fullmatch(text)):
            return "with a group of an unusual kind or with unusual flags"
        case "set" if "[:" in text[1:]:
            return r"with [: in a set; write \[:"
        case "one" if _FUZZY.match(pattern, at):
            return r"with an approximate match, or a brace that looks like one; write \{"
    return None


def _copies(count: str) -> int:
    """How many copies a repeat makes: what it must match, and once more for what it may."""
    if count in "*+?":
        return 2 if count == "+" else 1
    least, _, most = count[1:-1].partition(",")
    exactly = "," not in count or (most != "" and int(least or 0) == int(most))
    return max(1, int(least or 0) + (not exactly))
