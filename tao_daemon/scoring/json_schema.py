"""JSON Schema (2020-12) for schemas and answers that nobody vouches for.

Nothing is ever fetched: a `$ref` must resolve inside the schema. Every keyword looks at the deadline, every
pattern is bounded (see `patterns`), and whatever the validator raises on a hostile pair is `Undecided`. Every part is
read as 2020-12, whatever its `$schema` says: the library would check one of another dialect, or of a dialect that it
knows, with a validator of its own, by patterns of `re` and without a deadline.
schema → checked once, patterns compiled → decided any number of times, each within its deadline
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any

import regex
from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from tao_daemon.clients.patterns import compile_plain, unrolled
from tao_daemon.domain.embedded_json import is_shallow

MAX_SCHEMA_UNROLLED = 4_000
"""Sum over a schema's patterns of `patterns.unrolled`: up to 3 MB, of which many schemas are kept."""
SPARE_FRAMES = 200
"""Of Python's stack. Where it overflows within the library's maps, that is no RecursionError but a panic of theirs."""

# The library types itself in part only.
_Draft: Any = validators.Draft202012Validator
_extend: Any = validators.extend

Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]
Own = Callable[[Any, Any, Any], set[Any]]
"""Validator, instance and schema to what the schema's own keywords evaluate."""


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
        try:
            resolver = _resolver_of(schema)
            self._patterns = _patterns_of(schema, resolver)
        except (AttributeError, TypeError, LookupError, RecursionError) as error:
            # A reference may lead to what is no schema, which nobody has checked.
            raise ValueError(f"a JSON Schema cannot be followed ({type(error).__name__}); check its $ref") from None
        self._validator = _SafeValidator(schema, registry=Registry(), _resolver=resolver)
        self._keys = _keys_of(schema)

    def is_valid(self, value: Any, *, seconds: float) -> bool:
        """Whether a JSON value meets the schema. Raises Undecided."""
        return self._decide(self._validator.schema, value, time.monotonic() + seconds)

    def keys_met(self, value: Any, *, seconds: float) -> float:
        """Fraction of the schema's required keys (of all its keys, when it requires none) that an object has
        with a valid value; 0 for other values and for a schema without keys. Raises Undecided."""
        if not isinstance(value, dict) or not self._keys:
            return 0.0
        deadline = time.monotonic() + seconds
        met = [key in value and self._decide(schema, value[key], deadline) for key, schema in self._keys.items()]
        return sum(met) / len(met)

    def _decide(self, schema: Any, value: Any, deadline: float) -> bool:
        token = _run.set(_Run(deadline, self._patterns))
        try:
            return bool(self._validator.evolve(schema=schema).is_valid(value))
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
    if not is_shallow(schema):
        raise ValueError("a JSON Schema that is nested too deeply; flatten it")
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


def _resolver_of(schema: Any) -> Any:
    """What finds references, with every anchor known: the library's own would look for them at each reference anew."""
    root = DRAFT202012.create_resource(schema)
    base = root.id() or ""
    return Registry().with_resource(base, root).crawl().resolver(base)


def _patterns_of(schema: Any, resolver: Any) -> dict[str, regex.Pattern[str]]:
    """Compile every pattern and follow every reference. Raises ValueError for what cannot be used."""
    patterns: dict[str, regex.Pattern[str]] = {}
    budget = MAX_SCHEMA_UNROLLED
    for part in _parts(schema, resolver):
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


def _parts(schema: Any, resolver: Any) -> Iterator[dict[str, Any]]:
    """Every object schema in it, those behind references included, each once. Raises ValueError."""
    try:
        waiting = [(DRAFT202012.create_resource(schema), resolver)]
        seen: set[int] = set()
        while waiting:
            resource, resolver = waiting.pop()
            part = resource.contents
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            yield part
            resolver = resolver.in_subresource(resource)
            waiting += [(DRAFT202012.create_resource(sub.contents), resolver) for sub in resource.subresources()]
            for reference in (part.get("$ref"), part.get("$dynamicRef")):
                if reference is not None:
                    found = resolver.lookup(reference)
                    waiting.append((DRAFT202012.create_resource(found.contents), found.resolver))
    except Unresolvable as error:
        raise ValueError(f"a JSON Schema refers to {error.ref!r}, which is not inside it; inline it") from None


def _bound() -> None:
    """Raise where time or stack is used up."""
    if time.monotonic() > _run.get().deadline:
        raise OutOfTime
    try:
        sys._getframe(sys.getrecursionlimit() - SPARE_FRAMES)
    except ValueError:  # the stack has no so many frames
        return
    raise Undecided("endless or too deep recursion")


def _metered(keyword: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
        _bound()
        return keyword(validator, value, instance, schema)

    return check


def _search(pattern: str, text: str) -> bool:
    run = _run.get()
    left = run.deadline - time.monotonic()
    if left <= 0:
        raise OutOfTime
    return run.patterns[pattern].search(text, timeout=left, concurrent=True) is not None


def _evolve(self: Any, **changes: Any) -> Any:
    """The library's takes its class from the schema's `$schema`."""
    _bound()
    kept = {"schema": self.schema, "registry": self._registry, "_resolver": self._resolver}
    return _SafeValidator(**(kept | changes))


def _within(validator: Any, schema: Any) -> Any:
    """The validator of a subschema."""
    return validator.evolve(
        schema=schema, _resolver=validator._resolver.in_subresource(DRAFT202012.create_resource(schema))
    )


def _meets(validator: Any, instance: Any, schema: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _no() -> ValidationError:
    # The library's errors quote the instance; of many kept at once, that would be all memory.
    return ValidationError("no")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _search(pattern, instance):
        yield _no()


def _pattern_properties(validator: Any, subschemas: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, subschema in subschemas.items():
            for key, value in instance.items():
                if _search(pattern, key):
                    yield from validator.descend(value, subschema, path=key)


def _additional_properties(validator: Any, subschema: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(instance, dict):
        known = _own_keys(validator, instance, {key: schema[key] for key in _NAMING_KEYS if key in schema})
        for key, value in instance.items():
            if key not in known:
                yield from validator.descend(value, subschema, path=key)


def _any_of(validator: Any, subschemas: list[Any], instance: Any, schema: Any) -> Iterator[Any]:
    if not any(_meets(validator, instance, each) for each in subschemas):
        yield _no()


def _one_of(validator: Any, subschemas: list[Any], instance: Any, schema: Any) -> Iterator[Any]:
    met = (each for each in subschemas if _meets(validator, instance, each))
    if len([*islice(met, 2)]) != 1:
        yield _no()


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[Any]:
    # The library's compares pairwise.
    if unique and isinstance(instance, list) and len({_canonical(item) for item in instance}) < len(instance):
        yield _no()


def _canonical(value: Any) -> Hashable:
    """The same for JSON values that are equal, and only for those. Texts throughout: hashes of numbers can be made
    to collide."""
    match value:
        case bool() | None:
            return (str(value),)
        case float() if value.is_integer():
            return ("number", str(int(value)))
        case int() | float():
            return ("number", str(value))
        case list():
            return ("list", *map(_canonical, value))
        case dict():
            return frozenset((key, _canonical(each)) for key, each in value.items())
    return str(value)


def _unevaluated_properties(validator: Any, subschema: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(instance, dict):
        seen = _evaluated(validator, instance, _without(schema, "unevaluatedProperties"), _own_keys)
        for key in instance:
            if key not in seen:
                yield from validator.descend(instance[key], subschema, path=key)


def _unevaluated_items(validator: Any, subschema: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(instance, list):
        seen = _evaluated(validator, instance, _without(schema, "unevaluatedItems"), _own_places)
        for place, item in enumerate(instance):
            if place not in seen:
                yield from validator.descend(item, subschema, path=place)


def _without(schema: Mapping[str, Any], keyword: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != keyword}


def _evaluated(validator: Any, instance: Any, schema: Any, own: Own) -> set[Any]:
    """Which keys or places of the instance the schema evaluates, with what it applies in place. The library's takes
    patterns of `re` and endless time."""
    _bound()
    if not isinstance(schema, dict):
        return set()
    found = own(validator, instance, schema)
    for inner in _in_place(validator, instance, schema):
        found |= _evaluated(inner, instance, inner.schema, own)
    return found


def _in_place(validator: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Validators of what the schema applies to the instance itself, those that it does not meet aside."""
    for reference in ("$ref", "$dynamicRef"):
        if reference in schema:
            found = validator._resolver.lookup(schema[reference])
            yield validator.evolve(schema=found.contents, _resolver=found.resolver)
    subschemas = [each for keyword in ("allOf", "anyOf", "oneOf") for each in schema.get(keyword, ())]
    if isinstance(instance, dict):
        subschemas += [each for key, each in schema.get("dependentSchemas", {}).items() if key in instance]
    if "if" in schema:
        met = _meets(validator, instance, schema["if"])
        subschemas += [schema["if"], schema.get("then", True)] if met else [schema.get("else", True)]
    for subschema in subschemas:
        if _meets(validator, instance, subschema):
            yield _within(validator, subschema)


def _own_keys(validator: Any, instance: Mapping[str, Any], schema: Mapping[str, Any]) -> set[Any]:
    if "additionalProperties" in schema or "unevaluatedProperties" in schema:
        return set(instance)
    patterns = schema.get("patternProperties", ())
    named: set[Any] = instance.keys() & schema.get("properties", {}).keys()
    return named | {key for key in instance if any(_search(pattern, key) for pattern in patterns)}


def _own_places(validator: Any, instance: list[Any], schema: Mapping[str, Any]) -> set[Any]:
    if "items" in schema or "unevaluatedItems" in schema:
        return set(range(len(instance)))
    found = set(range(len(schema.get("prefixItems", ()))))
    if "contains" in schema:
        found |= {place for place, item in enumerate(instance) if _meets(validator, item, schema["contains"])}
    return found


_NAMING_KEYS = ("properties", "patternProperties")
_KEYWORDS: dict[str, Keyword] = {
    **_Draft.VALIDATORS,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "uniqueItems": _unique_items,
    "unevaluatedProperties": _unevaluated_properties,
    "unevaluatedItems": _unevaluated_items,
}
_SafeValidator = _extend(_Draft, {name: _metered(keyword) for name, keyword in _KEYWORDS.items()})
_SafeValidator.evolve = _evolve
