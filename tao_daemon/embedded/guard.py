"""Runs one command and leaves nothing of it behind: `python -I -S guard.py COMMAND [ARGUMENT ...]`.

Started by `processes.py`, which keeps the other end of our stdin open. Invariants: when stdin closes (the owner is
gone, however it died) or the command exits, every descendant is killed, those in sessions of their own included; when
this guard itself is killed, the kernel kills the command. SIGTERM, SIGINT and SIGHUP are passed on to the command only.
Exits with the command's status, 128 + signal as a shell does. Standard library only, so that it is up at once.

running → command exited | stdin closed → descendants killed and reaped → exit
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_COMMAND_NOT_FOUND = 127
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(command: list[str]) -> int:
    """Run the command under guard; return the exit status to leave with."""
    # Orphaned grandchildren become our children, so we can find and reap them whatever session they are in.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A signal between the fork and its handler would kill the guard before it guards: it waits instead.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = _spawn(command)
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _: _kill(pid, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    status = _watch(pid, wake_read)
    _kill_descendants()
    return status


def _spawn(command: list[str]) -> int:
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(_COMMAND_NOT_FOUND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot start {command[0]!r}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(_COMMAND_NOT_FOUND)


def _watch(pid: int, wake_read: int) -> int:
    """Wait until the command exits or our stdin closes; return the exit status."""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            for gone, status in _reap():
                if gone == pid:
                    return _shell_status(status)
        if 0 in ready and not os.read(0, 4096):
            return _shell_status(signal.SIGKILL)


def _reap() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _kill_descendants() -> None:
    """Kill and reap until no child is left: each death hands us its own children."""
    while True:
        for pid in _children():
            _kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listing:
        return [int(pid) for pid in listing.read().split()]


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
