"""Several gateway processes on one port: the kernel spreads connections over them (SO_REUSEPORT).

Invariants: every worker is a gateway of its own, with its own reports; a worker never outlives its parent, because
it ends when its standard input closes.

started → (a worker ends → back-off → started again) → stop → every worker drains → ended
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence

from tao_daemon.domain.errors import ConfigError

log = logging.getLogger(__name__)

WORKER_VARIABLE = "TAO_GATEWAY_WORKER"
"""Set in a worker's environment: its number."""
_BACK_OFF_SECONDS = (0.2, 30.0)
"""Before a worker that ended by itself is started again: doubled from the first to the second."""
_STEADY_SECONDS = 60.0
"""A worker that ran so long starts again without delay."""
_KILL_SECONDS = 10.0
"""On top of the drain's deadline: the last report and the flush of captured prompts are in it."""


def is_worker() -> bool:
    return WORKER_VARIABLE in os.environ


def own_port(first: int) -> int:
    """The port of this process alone, when process n has `first` + n; 0 for none."""
    return first and first + int(os.environ.get(WORKER_VARIABLE, 0))


async def run_workers(
    command: Sequence[str],
    count: int,
    address: tuple[str, int],
    stop: asyncio.Event,
    drain_seconds: float,
    *,
    metrics_port: int = 0,
) -> None:
    """Keep `count` processes of `command` running until `stop`, then let them drain.

    Raises ConfigError for port 0, and OSError when somebody else has the address, or a metrics port of a worker.
    """
    for number in range(count if metrics_port else 0):
        _bound(address[0], metrics_port + number).close()
    with _reserved(address):
        workers = [asyncio.create_task(_keep_running(command, number, stop, drain_seconds)) for number in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def end_with_parent() -> None:
    """In a worker: SIGTERM to itself when the parent is gone."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(0, readable)


def _reserved(address: tuple[str, int]) -> socket.socket:
    """The address, held while workers come and go; it never listens, so it gets no connections."""
    host, port = address
    if not port:
        raise ConfigError("gateway.port = 0 takes a free port per process; name a port, or set gateway.processes = 1")
    # Without SO_REUSEPORT first: otherwise two deployments would share the port, each getting half the requests.
    _bound(host, port).close()
    return _bound(host, port, socket.SO_REUSEPORT)


def _bound(host: str, port: int, option: int = socket.SO_REUSEADDR) -> socket.socket:
    """A socket that has the address and does not listen. Raises OSError naming the address when it is in use."""
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, option, 1)
        found.bind(where)
    except OSError as error:
        found.close()
        raise OSError(error.errno, f"{error.strerror}: {host}:{port}") from None
    return found


async def _keep_running(command: Sequence[str], number: int, stop: asyncio.Event, drain_seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    wait, longest = _BACK_OFF_SECONDS
    while not stop.is_set():
        started = clock()
        status = await _run_once(command, number, stop, drain_seconds)
        if stop.is_set():
            return
        if clock() - started > _STEADY_SECONDS:
            wait = _BACK_OFF_SECONDS[0]
        log.error("gateway worker ended; starting it again", extra={"worker": number, "status": status, "after": wait})
        try:
            async with asyncio.timeout(wait):
                await stop.wait()
        except TimeoutError:
            wait = min(2 * wait, longest)


async def _run_once(command: Sequence[str], number: int, stop: asyncio.Event, drain_seconds: float) -> int:
    """One life of a worker; its exit status."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, env={**os.environ, WORKER_VARIABLE: str(number)}
    )
    ended, stopping = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
            await asyncio.wait([ended], timeout=drain_seconds + _KILL_SECONDS)
    finally:
        stopping.cancel()
        if not ended.done():
            process.kill()
        status = await ended
        if process.stdin is not None:
            process.stdin.close()
    return status
