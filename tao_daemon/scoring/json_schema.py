"""JSON Schema (2020-12) for schemas and answers that nobody vouches for.

Nothing is ever fetched: a `$ref` must resolve inside the schema. Every keyword looks at the deadline, every
pattern is bounded (see `patterns`), and whatever the validator raises on a hostile pair is `Undecided`.
schema → checked once, patterns compiled → decided any number of times, each within its deadline
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import regex
from jsonschema import validators
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from tao_daemon.clients.patterns import compile_plain, unrolled

MAX_SCHEMA_UNROLLED = 4_000
"""Sum over a schema's patterns of `patterns.unrolled`: up to 3 MB, of which many schemas are kept."""
MAX_UNIQUE_ITEMS = 1_000
"""`uniqueItems` compares pairwise."""

# The library types itself in part only.
_Draft: Any = validators.Draft202012Validator
_extend: Any = validators.extend

Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class Undecided(Exception):
    """Whether a value meets the schema could not be found out."""


class OutOfTime(Undecided):
    """… before the deadline."""


@dataclass(frozen=True, slots=True)
class _Run:
    deadline: float
    patterns: Mapping[str, regex.Pattern[str]]


_run: ContextVar[_Run] = ContextVar("json_schema_run")
"""Keywords are plain functions of the library's class; this is how the run under way reaches them."""


class SafeSchema:
    """One checked schema. Safe from any thread. Raises ValueError for a schema that cannot be used."""

    def __init__(self, schema: Any) -> None:
        _check(schema)
        self._validator = _SafeValidator(schema, registry=Registry())
        try:
            self._patterns = _patterns_of(schema)
        except (AttributeError, TypeError, LookupError, RecursionError) as error:
            # A reference may lead to what is no schema, which nobody has checked.
            raise ValueError(f"a JSON Schema cannot be followed ({type(error).__name__}); check its $ref") from None
        self._keys = _keys_of(schema)

    def is_valid(self, value: Any, *, seconds: float) -> bool:
        """Whether a JSON value meets the schema. Raises Undecided."""
        return self._decide(self._validator, value, time.monotonic() + seconds)

    def keys_met(self, value: Any, *, seconds: float) -> float:
        """Fraction of the schema's required keys (of all its keys, when it requires none) that an object has
        with a valid value; 0 for other values and for a schema without keys. Raises Undecided."""
        if not isinstance(value, dict) or not self._keys:
            return 0.0
        deadline = time.monotonic() + seconds
        met = [
            key in value and self._decide(self._validator.evolve(schema=schema), value[key], deadline)
            for key, schema in self._keys.items()
        ]
        return sum(met) / len(met)

    def _decide(self, validator: Any, value: Any, deadline: float) -> bool:
        token = _run.set(_Run(deadline, self._patterns))
        try:
            return bool(validator.is_valid(value))
        except Undecided:
            raise
        except TimeoutError:
            raise OutOfTime from None
        except Exception as error:  # noqa: BLE001
            # A third-party validator on a hostile schema and answer: endless recursion, overflow, broken $id …
            raise Undecided(type(error).__name__) from None
        finally:
            _run.reset(token)


def _check(schema: Any) -> None:
    if not isinstance(schema, dict | bool):
        raise ValueError("a JSON Schema must be an object or a boolean")
    try:
        # No format checker: it would compile patterns with `re`, whose dialect is not ours.
        _Draft.check_schema(schema, format_checker=None)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema at {error.json_path}: {error.validator} is violated") from None
    except RecursionError:
        raise ValueError("a JSON Schema that is nested too deeply; flatten it") from None


def _keys_of(schema: Any) -> dict[str, Any]:
    """Required keys with their schemas, or all known keys when none is required."""
    if not isinstance(schema, dict):
        return {}
    properties = schema.get("properties", {})
    return {key: properties.get(key, True) for key in schema.get("required") or properties}


def _patterns_of(schema: Any) -> dict[str, regex.Pattern[str]]:
    """Compile every pattern and follow every reference. Raises ValueError for what cannot be used."""
    patterns: dict[str, regex.Pattern[str]] = {}
    budget = MAX_SCHEMA_UNROLLED
    for part in _parts(schema):
        if "unevaluatedProperties" in part and "patternProperties" in part:
            raise ValueError(
                "unevaluatedProperties beside patternProperties is not supported; use additionalProperties"
            )
        for pattern in [
            *part.get("patternProperties", ()),
            *([part["pattern"]] if "pattern" in part else ()),
        ]:
            if pattern not in patterns:
                patterns[pattern] = compile_plain(pattern)
                budget -= unrolled(pattern)
                if budget < 0:
                    raise ValueError("the patterns repeat too much in all; use fewer or smaller counts")
    return patterns


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object schema in it, those behind references included, each once. Raises ValueError."""
    root = DRAFT202012.create_resource(schema)
    try:
        waiting = [(root, Registry().resolver_with_root(root))]
        seen: set[int] = set()
        while waiting:
            resource, resolver = waiting.pop()
            part = resource.contents
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            yield part
            resolver = resolver.in_subresource(resource)
            waiting += [(sub, resolver) for sub in resource.subresources()]
            for reference in (part.get("$ref"), part.get("$dynamicRef")):
                if reference is not None:
                    found = resolver.lookup(reference)
                    waiting.append((DRAFT202012.create_resource(found.contents), found.resolver))
    except Unresolvable as error:
        raise ValueError(f"a JSON Schema refers to {error.ref!r}, which is not inside it; inline it") from None


def _metered(keyword: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
        if time.monotonic() > _run.get().deadline:
            raise OutOfTime
        return keyword(validator, value, instance, schema)

    return check


def _search(pattern: str, text: str) -> bool:
    run = _run.get()
    left = run.deadline - time.monotonic()
    if left <= 0:
        raise OutOfTime
    return run.patterns[pattern].search(text, timeout=left, concurrent=True) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _search(pattern, instance):
        yield from validator.descend(instance, False)


def _pattern_properties(validator: Any, subschemas: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, subschema in subschemas.items():
            for key, value in instance.items():
                if _search(pattern, key):
                    yield from validator.descend(value, subschema, path=key)


def _additional_properties(validator: Any, subschema: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(instance, dict):
        patterns = schema.get("patternProperties", {})
        for key, value in instance.items():
            if key not in schema.get("properties", {}) and not any(_search(p, key) for p in patterns):
                yield from validator.descend(value, subschema, path=key)


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[Any] | None:
    if isinstance(instance, list) and len(instance) > MAX_UNIQUE_ITEMS:
        raise Undecided("too many items to compare")
    errors: Iterator[Any] | None = _Draft.VALIDATORS["uniqueItems"](validator, unique, instance, schema)
    return errors


_KEYWORDS: dict[str, Keyword] = {
    **_Draft.VALIDATORS,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_SafeValidator = _extend(_Draft, {name: _metered(keyword) for name, keyword in _KEYWORDS.items()})
