"""Child processes that never outlive us: a guarded start, a readiness wait with a deadline, a bounded stop.

Invariants: however this process ends, SIGKILL included, the child and all it started end too (`guard.py`); stdout and
stderr go to a log file, whose tail is part of every start error; `stop` may be called at any time, any number of times.

start → wait_ready → (running) → stop
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tao_daemon.domain.errors import TaoError

Probe = Callable[[], Awaitable[bool]]

_GUARD = Path(__file__).with_name("guard.py")
_TAIL_BYTES = 4_000
_KILL_DEADLINE_S = 10.0


class EmbeddedError(TaoError):
    """The embedded stack cannot run here, or one of its parts did not start."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `env` is the whole environment, nothing is inherited behind the caller's back."""

    name: str
    argv: Sequence[str]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None


class ManagedProcess:
    """One running child; made by `start`, so an instance always has a process."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self._process = process

    @classmethod
    async def start(cls, command: Command) -> Self:
        """Start the command under its guard; the log file is appended to."""
        command.log_path.parent.mkdir(parents=True, exist_ok=True)
        with command.log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *guarded(command.argv),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(command.env),
                cwd=command.cwd,
                # A Ctrl-C in our terminal is ours to handle, in our order.
                start_new_session=True,
            )
        return cls(command, process)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The guard's process id; the command is its child."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The command's exit status (128 + signal), or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until the command has exited and everything it started is gone."""
        return await self._process.wait()

    async def wait_ready(self, probe: Probe, *, deadline_s: float, interval_s: float = 0.1) -> None:
        """Return once `probe` says so; raise early when the child exits, and at the deadline."""
        exited = asyncio.create_task(self.wait())
        ready = asyncio.create_task(_until_ready(probe, interval_s))
        try:
            done, _ = await asyncio.wait({exited, ready}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            exited.cancel()
            ready.cancel()
        if ready in done:
            ready.result()
            return
        if exited in done:
            raise self._start_error(f"exited with status {exited.result()} before it was ready")
        raise self._start_error(f"was not ready after {deadline_s:g} s")

    async def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, then after `grace_s` SIGKILL for everything that is left; returns when all is gone."""
        if self.returncode is None and grace_s > 0:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace_s)
        if self.returncode is None:
            await self._kill_all()

    def log_tail(self, size: int = _TAIL_BYTES) -> str:
        """The last bytes of the log, as text."""
        return log_tail(self.command.log_path, size)

    async def _kill_all(self) -> None:
        assert self._process.stdin is not None
        # The guard takes the end of its stdin for our death: it kills and reaps every descendant.
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self.wait(), _KILL_DEADLINE_S)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _start_error(self, what: str) -> EmbeddedError:
        command = self.command
        return EmbeddedError(
            f"{command.name} {what}; command: {shlex.join(command.argv)}; the end of its log {command.log_path}, "
            f"which is where to look:\n{self.log_tail()}"
        )


def guarded(argv: Sequence[str]) -> list[str]:
    """The argv that runs `argv` for as long as the stdin given to it stays open."""
    return [sys.executable, "-I", "-S", str(_GUARD), *argv]


def log_tail(path: Path, size: int = _TAIL_BYTES) -> str:
    """The last `size` bytes of a file as text; empty when it is not there."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - size))
            return log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def free_port() -> int:
    """A TCP port on the loopback interface that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, what: str) -> None:
    """Raise when something listens on the loopback port: a readiness probe would take it for ours."""
    with socket.socket() as probe:
        # Connections of an earlier server that linger are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedError(
                f"{what} cannot listen on 127.0.0.1:{port} ({error.strerror}): stop what holds that port, or leave the "
                "port out to have a free one chosen"
            ) from error


async def _until_ready(probe: Probe, interval_s: float) -> None:
    while not await probe():  # noqa: ASYNC110 - a server of its own: there is no event to await
        await asyncio.sleep(interval_s)
