"""Watching whole process trees: who descends from a process, and whether they are all gone."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, whatever session it is in."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += [int(child), *descendants(int(child))]
    return found


@contextmanager
def watched(pids: list[int]) -> Iterator[dict[int, int]]:
    """Handles of running processes, immune to the reuse of their numbers."""
    handles = {os.pidfd_open(pid): pid for pid in pids}
    try:
        yield handles
    finally:
        for handle in handles:
            os.close(handle)


def survivors(handles: dict[int, int], deadline_s: float) -> list[int]:
    """The processes that still run after the deadline, which is per exit."""
    waiting = dict(handles)
    poller = select.poll()
    for handle in waiting:
        poller.register(handle, select.POLLIN)
    while waiting:
        ended = poller.poll(deadline_s * 1000)
        if not ended:
            break
        for handle, _ in ended:
            poller.unregister(handle)
            del waiting[handle]
    return sorted(waiting.values())
