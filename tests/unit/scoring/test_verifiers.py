"""Regex, request and Python verifiers, and the bounds on patterns."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from tao_daemon.scoring import python_verifier
from tao_daemon.scoring.python_verifier import PythonVerifier, import_function
from tao_daemon.scoring.regex_verifier import RegexVerifier
from tao_daemon.scoring.request_verifier import request_verifier
from tao_daemon.scoring.verifier import Failure


@pytest.mark.parametrize(("text", "score"), [("yes", 1.0), (" no \n", 1.0), ("yes!", 0.0), ("", 0.0), ("yes no", 0.0)])
def test_a_regex_must_match_the_whole_answer(text: str, score: float) -> None:
    assert RegexVerifier("yes|no", timeout_seconds=1.0).check(text) == score


def test_a_regex_that_backtracks_without_end_is_a_failure_in_time() -> None:
    verifier = RegexVerifier("^(a|aa)+$", timeout_seconds=0.2)
    started = time.process_time()
    assert verifier.check("a" * 60 + "b") is Failure.TIMEOUT
    assert time.process_time() - started < 5


@pytest.mark.parametrize("pattern", ["[", "(?P<a>x)(?P<a", "a" * 3000, "(?:a{200}){200}"])
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|regular"):
        RegexVerifier(pattern, timeout_seconds=1.0)


def test_a_request_brings_its_verifier() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    verifier = request_verifier({"response_format": wanted})
    assert verifier is not None
    assert (verifier.check('{"a": 1}'), verifier.check("{}")) == (1.0, 0.3)
    anything = request_verifier({"response_format": {"type": "json_object"}})
    assert anything is not None
    assert (anything.check("{}"), anything.check("[]"), anything.check("no")) == (1.0, 0.3, 0.0)


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        "json",
        {},
        {"type": "text"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1:9/"}}},
    ],
)
def test_a_request_without_a_usable_format_brings_none(wanted: Any) -> None:
    assert request_verifier({"response_format": wanted}) is None


def verifier_of(function: Any, seconds: float = 5.0) -> PythonVerifier:
    return PythonVerifier(function, timeout_seconds=seconds)


async def test_a_function_scores_by_request_and_answer() -> None:
    verifier = verifier_of(lambda request, answer: request["want"] == answer)
    assert await verifier.check({"want": "a"}, "a") == 1.0
    assert await verifier.check({"want": "a"}, "b") == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, None, "high", "0.5", [1]])
async def test_what_is_no_score_is_a_failure_and_never_0(value: Any) -> None:
    assert await verifier_of(lambda request, answer: value).check({}, "a") is Failure.OUT_OF_RANGE


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
async def test_what_the_function_raises_is_a_failure(error: BaseException) -> None:
    def fail(request: dict[str, Any], answer: str) -> float:
        raise error

    assert await verifier_of(fail).check({}, "a") is Failure.ERROR


async def test_the_function_cannot_change_the_request() -> None:
    def change(request: dict[str, Any], answer: str) -> float:
        request["messages"].clear()
        return 1.0

    request = {"messages": [{"role": "user", "content": "x"}]}
    assert await verifier_of(change).check(request, "a") == 1.0
    assert len(request["messages"]) == 1


async def test_an_overrunning_call_is_left_behind_and_the_loop_stays_free() -> None:
    release = threading.Event()
    verifier = verifier_of(lambda request, answer: float(release.wait(30)), seconds=0.1)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    assert await verifier.check({}, "a") is Failure.TIMEOUT
    ticker.cancel()
    release.set()
    assert ticks >= 3


async def test_calls_left_behind_are_bounded_and_forgotten_when_they_end() -> None:
    release = threading.Event()
    started: list[str] = []

    def hang(request: dict[str, Any], answer: str) -> float:
        started.append(answer)
        return float(release.wait(30))

    verifier = verifier_of(hang, seconds=0.05)
    scores = [await verifier.check({}, str(n)) for n in range(python_verifier.MAX_LEFT_BEHIND + 2)]
    assert scores[: python_verifier.MAX_LEFT_BEHIND] == [Failure.TIMEOUT] * python_verifier.MAX_LEFT_BEHIND
    assert scores[python_verifier.MAX_LEFT_BEHIND :] == [Failure.STUCK] * 2
    assert len(started) == python_verifier.MAX_LEFT_BEHIND
    release.set()
    for thread in threading.enumerate():
        if thread.name == "python-verifier":
            thread.join(5)
    assert await verifier_of(lambda request, answer: 1.0).check({}, "a") == 1.0
    assert await PythonVerifier(hang, timeout_seconds=5.0).check({}, "last") == 1.0
    assert await verifier.check({}, "again") == 1.0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nonsense", "package.module:function"),
        ("no_such_module_anywhere:f", "no_such_module_anywhere"),
        ("math:no_such_function", "no_such_function"),
        ("math:pi", "pi"),
    ],
)
def test_a_function_that_cannot_be_imported_says_why(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_function(path)


def wanting(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def test_a_very_large_schema_is_no_verifier() -> None:
    assert request_verifier(wanting({"enum": ["x" * 60_000]})) is not None
    assert request_verifier(wanting({"enum": ["x" * 70_000]})) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/default", "default": {"properties": 5}},
        {"$ref": "#/default", "default": {"pattern": 5}},
        {"$ref": "#/default", "default": {"$ref": 5}},
        {"$ref": "#/default/x", "default": 5},
    ],
)
def test_a_reference_to_what_is_no_schema_brings_none(schema: Any) -> None:
    assert request_verifier(wanting(schema)) is None


def test_two_hundred_schemas_are_remembered() -> None:
    requests = [wanting({"required": [f"k{n}"]}) for n in range(200)]
    first = [request_verifier(request) for request in requests]
    assert all(one is other for one, other in zip(first, map(request_verifier, requests), strict=True))
