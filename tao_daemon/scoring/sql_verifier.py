"""How far an answer is a query that works on the fixture: a graded score, so that a weak model has a way up.

    1      one SELECT statement that runs, reads a table or view of the fixture, and gives at least one row (without
           the table, SELECT 1 would be the best answer to everything; DESCRIBE and SUMMARIZE read none)
    0.5    … that runs
    0.2    … that parses; one that would write parses, and does not run
    0      no SELECT, several statements (a PIVOT without IN is), or more than `MAX_CHARACTERS`

Queries run in a process of their own, one at a time (see `sql_worker`). Over its deadline the process is killed, and
the next query starts another; so a query that never ends, or takes all memory, is a Failure and harms nothing.
fixture → process started, fixture run → query in, score out → close: process killed, whatever is asked then an ERROR
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tao_daemon.scoring.extraction import extractor
from tao_daemon.scoring.verifier import Failure, Score

MAX_CHARACTERS = 20_000
"""Of a query."""
START_SECONDS = 60.0
"""Deadline of the process's start, the fixture included."""
MAX_AHEAD = 32
"""Queries that one may wait for, each as long as its deadline."""
WORKER = (sys.executable, "-m", "tao_daemon.scoring.sql_worker")


class SqlVerifier:
    """Implements `Verifier`. Safe from any thread.

    Raises ValueError for a fixture that cannot be read or run, and for an extractor that there is not.
    """

    def __init__(self, fixture: Path, answer: str, *, timeout_seconds: float) -> None:
        """`answer`: the extractor that finds the query."""
        self._answer = extractor(answer, timeout_seconds=timeout_seconds)
        self._timeout = timeout_seconds
        self._fixture = _read(fixture)
        self._turn = threading.Lock()
        self._closing = threading.Lock()
        """Held for moments only, so that closing waits for no query."""
        self._closed = False
        self._process: _Process | None = None
        try:
            self._ready()
        except _Broken as error:
            raise ValueError(f"fixture {fixture} does not run: {error}") from None

    def check(self, text: str) -> Score:
        try:
            query = self._answer.from_answer(text)
        except TimeoutError:
            return Failure.TIMEOUT
        if query is None or len(query) > MAX_CHARACTERS or not _is_unicode(query):
            return 0.0
        if not self._turn.acquire(timeout=MAX_AHEAD * self._timeout):
            return Failure.TIMEOUT
        try:
            return self._graded(query)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the process at once; a query that runs, waits or comes later is an ERROR. Idempotent."""
        with self._closing:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        # Who has the turn finds the process dead.
        with self._turn:
            self._drop()

    def _graded(self, query: str) -> Score:
        """Needs the turn."""
        try:
            answer = self._ready().ask({"query": query}, seconds=self._timeout)
        except TimeoutError:
            self._drop()
            return Failure.TIMEOUT
        except _Broken:
            self._drop()
            return Failure.ERROR
        return float(answer["score"]) if "score" in answer else Failure.ERROR

    def _ready(self) -> _Process:
        """The process with its fixture in place. Raises _Broken. Needs the turn."""
        with self._closing:
            if self._closed:
                raise _Broken("the verifier is closed")
            if self._process is not None:
                return self._process
            # In reach of close() before it is ready: the fixture may take long.
            process = self._process = _Process()
        try:
            process.load(self._fixture)
        except _Broken:
            self._drop()
            raise
        return process

    def _drop(self) -> None:
        with self._closing:
            process, self._process = self._process, None
        if process is not None:
            process.end()


class _Broken(Exception):
    """The process could not start, or ended by itself."""


class _Process:
    """One worker. Raises _Broken. After any exception of its methods it is dead."""

    def __init__(self) -> None:
        try:
            self._child = subprocess.Popen(
                WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _Broken(f"cannot start a process: {error.strerror}") from None
        self.end = weakref.finalize(self, _end, self._child)
        """Only for who has the turn: it closes what `ask` reads."""

    def kill(self) -> None:
        """Safe while another thread asks: that finds it ended."""
        self._child.kill()

    def load(self, fixture: str) -> None:
        try:
            ready = self.ask({"fixture": fixture}, seconds=START_SECONDS)
        except TimeoutError:
            raise _Broken(f"it takes longer than {START_SECONDS:g} seconds; make it smaller") from None
        if "error" in ready:
            self.end()
            raise _Broken(ready["error"])

    def ask(self, message: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        """The answer to one line. Raises TimeoutError, _Broken."""
        try:
            task = json.dumps({**message, "seconds": seconds})
            line = _exchange(self._child, task.encode() + b"\n", time.monotonic() + seconds)
            answer: dict[str, Any] = json.loads(line)
        except TimeoutError:
            self.end()
            raise
        except (OSError, ValueError):
            self.end()
            raise _Broken("the process ended by itself (out of memory?)") from None
        return answer


def _exchange(child: subprocess.Popen[bytes], message: bytes, deadline: float) -> bytes:
    """Raises TimeoutError, and OSError for a child that has ended."""
    assert child.stdout is not None
    _send(child, message, deadline)
    poll = select.poll()
    poll.register(child.stdout, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        part = child.stdout.read(65536)
        if not part:
            raise BrokenPipeError
        line += part
    return line


def _send(child: subprocess.Popen[bytes], message: bytes, deadline: float) -> None:
    """Like `_exchange`: a child that is stopped reads nothing, and its pipe holds 64 KiB."""
    assert child.stdin is not None
    os.set_blocking(child.stdin.fileno(), False)
    poll = select.poll()
    poll.register(child.stdin, select.POLLOUT)
    rest = memoryview(message)
    while rest:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        rest = rest[os.write(child.stdin.fileno(), rest) :]


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _read(fixture: Path) -> str:
    try:
        return fixture.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read fixture {fixture}: {error.strerror}") from None
    except UnicodeError:
        raise ValueError(f"fixture {fixture} is not UTF-8 text") from None
