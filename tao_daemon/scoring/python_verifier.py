"""A user's own function as a scorer, in a thread, with a deadline.

One call at a time, so the function need not be thread-safe. But a thread cannot be killed: a call that overruns
is left behind, and the next ones run beside it. At most `MAX_LEFT_BEHIND` such calls may exist; beyond that
nothing is started until one of them ends. The threads are daemons, so none keeps the process alive.
import at start → call in a thread → number in [0, 1] | Failure
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib import metadata
from typing import Any

from tao_daemon.scoring.verifier import Failure, Score

MAX_LEFT_BEHIND = 8
ENTRY_POINTS = "tao_daemon.scorers"
"""Group in which installed packages offer functions by name."""

Function = Callable[[dict[str, Any], str], Any]


def import_function(path: str) -> Function:
    """The function at "package.module:function", or of the entry point of that name in `ENTRY_POINTS`.

    Raises ValueError that says what is missing.
    """
    if ":" not in path:
        path = _entry_point(path)
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ValueError(f'callable {path!r} is not of the form "package.module:function"')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # Importing runs the user's code: whatever it raises, the setting is at fault.
        raise ValueError(f"cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"module {module_name!r} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def _entry_point(name: str) -> str:
    """The "package.module:function" that an installed package has put under the name. Raises ValueError."""
    found = {point.name: f"{point.module}:{point.attr}" for point in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(
            f'callable {name!r} is neither "package.module:function" nor an entry point in the group {ENTRY_POINTS!r} '
            f"(installed: {known})"
        )
    return found[name]


class PythonVerifier:
    """Calls `function(request, answer)`. Use from one event loop."""

    def __init__(self, function: Function, *, timeout_seconds: float) -> None:
        self._function = function
        self._timeout = timeout_seconds
        self._turn = asyncio.Lock()
        self._left_behind: list[Future[Any]] = []

    async def check(self, request: Mapping[str, Any], text: str) -> Score:
        """The function's score. It gets a copy of the request, so it cannot change what is trained on."""
        async with self._turn:
            self._left_behind = [call for call in self._left_behind if not call.done()]
            if len(self._left_behind) >= MAX_LEFT_BEHIND:
                return Failure.STUCK
            call = _start(self._function, copy.deepcopy(dict(request)), text)
            try:
                return await asyncio.wait_for(asyncio.wrap_future(call), self._timeout)
            except TimeoutError:
                return Failure.TIMEOUT
            finally:
                if not call.done():
                    self._left_behind.append(call)


def _start(function: Function, request: dict[str, Any], text: str) -> Future[Score]:
    call: Future[Score] = Future()
    # From here on nobody can cancel it: it is done when the function is.
    call.set_running_or_notify_cancel()

    def run() -> None:
        try:
            call.set_result(_in_range(function(request, text)))
        except BaseException:  # noqa: BLE001
            # Also SystemExit: a scorer may end its own call, never the daemon.
            call.set_result(Failure.ERROR)

    threading.Thread(target=run, name="python-verifier", daemon=True).start()
    return call


def _in_range(value: Any) -> Score:
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        return Failure.OUT_OF_RANGE
    return number if math.isfinite(number) and 0.0 <= number <= 1.0 else Failure.OUT_OF_RANGE
