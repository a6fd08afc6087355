"""Sites with a past, and commands in a pseudo-terminal."""

from __future__ import annotations

import errno
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.cli.past import environment_of, write_past


@pytest.fixture
def past_site(make_site: Callable[..., Any]) -> Callable[..., Any]:
    """Builds a site: round 1 settled, round 2 rejected, round 3 accepted; its rollout waits for an approval."""

    def make(**sections: Any) -> Any:
        site = make_site(
            kafka={"enabled": False},
            serving={"replicas": ["http://127.0.0.1:9"]},
            rollout={"shadow_pairs": 8, "margin": 0.5, **sections.pop("rollout", {})},
            **sections,
        )
        write_past(site)
        return site

    return make


@dataclass
class Terminal:
    """A command in a pseudo-terminal."""

    child: subprocess.Popen[bytes]
    handle: int
    seen: str = ""

    def until(self, text: str, seconds: float = 20.0) -> str:
        """Everything seen once `text` appeared."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never appeared in:\n{self.seen}"
            if select.select([self.handle], [], [], left)[0] and not self._read():
                assert text in self.seen, f"ended without {text!r}:\n{self.seen}"
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal; the exit status."""
        self.child.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = 20.0) -> int:
        deadline = time.monotonic() + seconds
        while self.child.poll() is None and time.monotonic() < deadline:
            if select.select([self.handle], [], [], 0.1)[0]:
                self._read()
        return self.child.wait(1)

    def _read(self) -> bool:
        try:
            chunk = os.read(self.handle, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.seen += chunk.decode("utf-8", "replace")
        return bool(chunk)


@pytest.fixture
def in_terminal() -> Callable[..., Any]:
    """Runs a command of a site's CLI in a pseudo-terminal of 120 columns."""

    @contextmanager
    def run(site: Any, *arguments: str, **environment: str) -> Iterator[Terminal]:
        ours, theirs = pty.openpty()
        env = {**environment_of(site), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50", **environment}
        child = subprocess.Popen(
            [sys.executable, "-m", "tao_daemon", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            yield Terminal(child, ours)
        finally:
            child.kill()
            child.wait(10)
            os.close(ours)

    return run
