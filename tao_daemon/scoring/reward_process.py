"""A reward model in a child process of its own: its memory, its torch and its crashes are not ours.

One request at a time. A child that dies is started once more within the call; one that takes too long is killed;
one that cannot load, or dies of it, is left alone for a while. It ends when we close its stdin, and so when we end.

first request → started and loaded → one JSON line each way per request → close
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao_daemon.scoring.verifier import Failure

START_SECONDS = 600.0
"""Until the model is loaded."""
PAUSE_SECONDS = 60.0
"""After a start that failed, until the next."""
TRIES = 2
MAX_LINE_BYTES = 1 << 20

WORKER = (sys.executable, "-m", "tao_daemon.scoring.reward_worker")

_log = logging.getLogger(__name__)


class _Died(Exception):
    """The child ended, or said what is not of the protocol."""


class _Unloadable(Exception):
    """The child said why it cannot load."""


@dataclass(frozen=True, slots=True)
class RawScores:
    values: tuple[float, ...]
    tokens: int


class RewardProcess:
    """Use from one event loop."""

    def __init__(self, folder: Path, *, command: Sequence[str] = WORKER, start_seconds: float = START_SECONDS) -> None:
        self._command = (*command, str(folder.absolute()))
        self._start_seconds = start_seconds
        self._turn = asyncio.Lock()
        self._child: Process | None = None
        self._closed = False
        self._not_before = 0.0

    async def ask(self, request: Mapping[str, Any], *, seconds: float) -> RawScores | Failure:
        """Raw scores of a request's answers; `seconds` counts from when its turn comes, loading apart."""
        async with self._turn:
            for _ in range(TRIES):
                try:
                    return await self._asked(request, seconds)
                except _Died:
                    await self._end()
                except BaseException:
                    # What it still computes would be taken for the next answer.
                    await self._end()
                    raise
            return Failure.UNAVAILABLE

    async def close(self) -> None:
        """End the child at once, whatever it does; who asks meanwhile or later finds it unavailable. Idempotent."""
        self._closed = True
        if self._child is not None:
            _kill(self._child)
        # Who has the turn finds the child dead.
        async with self._turn:
            await self._end()

    async def _asked(self, request: Mapping[str, Any], seconds: float) -> RawScores | Failure:
        if self._child is None and not await self._started():
            return Failure.UNAVAILABLE
        assert self._child is not None
        try:
            async with asyncio.timeout(seconds):
                return _scores(await _exchange(self._child, request), len(request["answers"]))
        except TimeoutError:
            await self._end()
            return Failure.TIMEOUT

    async def _started(self) -> bool:
        """Start and load. False when that cannot be, or could not a short while ago."""
        now = asyncio.get_running_loop().time
        if self._closed or now() < self._not_before:
            return False
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=MAX_LINE_BYTES, start_new_session=True
            )
            if self._closed:
                _kill(self._child)
            async with asyncio.timeout(self._start_seconds):
                hello = await _line(self._child)
            if "ready" not in hello:
                raise _Unloadable(hello.get("failed", "it does not say why"))
        except (OSError, TimeoutError, _Died, _Unloadable) as error:
            reason = str(error) or f"not loaded within {self._start_seconds:g} s"
            _log.warning("reward model cannot be loaded", extra={"reason": reason, "folder": self._command[-1]})
            self._not_before = now() + PAUSE_SECONDS
            await self._end()
            return False
        _log.info("reward model loaded", extra={"pid": self._child.pid, "device": hello["ready"]})
        return True

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        child.stdin.close()
        _kill(child)
        await child.wait()


def _kill(child: Process) -> None:
    # Process.kill() looks first whether the child has ended, and so takes its status away from asyncio's watcher.
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


async def _exchange(child: Process, request: Mapping[str, Any]) -> dict[str, Any]:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        await child.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        raise _Died("it ended") from None
    return await _line(child)


async def _line(child: Process) -> dict[str, Any]:
    assert child.stdout is not None
    try:
        value = json.loads(await child.stdout.readline())
    except ValueError:  # also of an empty line: its stdout has ended
        raise _Died("it ended (out of memory?), or says what is no JSON") from None
    if not isinstance(value, dict):
        raise _Died("it says what is not of the protocol")
    return value


def _scores(reply: Mapping[str, Any], answers: int) -> RawScores | Failure:
    if "error" in reply:
        _log.warning("reward model failed", extra={"error": reply["error"]})
        return Failure.ERROR
    values, tokens = reply.get("scores"), reply.get("tokens")
    if not isinstance(values, list) or len(values) != answers or not isinstance(tokens, int):
        raise _Died
    return RawScores(tuple(float(value) for value in values), tokens)
