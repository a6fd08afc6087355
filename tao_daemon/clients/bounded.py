"""Many coroutines, a few at a time or all at once, nothing left behind.

start up to `limit` → one ends, the next starts → results as they are taken → done | deadline | closed: the rest is
cancelled
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def as_finished(
    jobs: Iterator[Coroutine[Any, Any, T]], *, limit: int, deadline: float
) -> AsyncGenerator[T, None]:
    """Results in the order they finish. `jobs` is consumed lazily, `deadline` is in the loop's time.

    The next job starts when one ends, also while the consumer is busy with a result, until `limit` results wait for it.
    Raises TimeoutError at the deadline, or the first job's exception. Close it (`contextlib.aclosing`) and
    every started job has ended.
    """
    slots = _Slots(jobs, limit)
    try:
        slots.fill()
        while slots.running or slots.finished:
            if not slots.finished:
                async with asyncio.timeout_at(deadline):
                    await slots.changed.wait()
            while slots.finished:
                task = slots.finished.popleft()
                slots.fill()
                yield task.result()
            slots.changed.clear()
    finally:
        await slots.close()


async def together(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; results in the order of the jobs. The first exception is raised when the others are cancelled and
    have ended."""
    tasks = [asyncio.get_running_loop().create_task(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:  # A TaskGroup would lose a cancellation that comes while the others end.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Slots(Generic[T]):
    def __init__(self, jobs: Iterator[Coroutine[Any, Any, T]], limit: int) -> None:
        self._jobs: Iterator[Coroutine[Any, Any, T]] | None = jobs
        self._limit = limit
        self.running: set[asyncio.Task[T]] = set()
        self.finished: deque[asyncio.Task[T]] = deque()
        self.changed = asyncio.Event()

    def fill(self) -> None:
        while self._jobs is not None and len(self.running) < self._limit and len(self.finished) < self._limit:
            job = next(self._jobs, None)
            if job is None:
                self._jobs = None
                return
            task = asyncio.get_running_loop().create_task(job)
            self.running.add(task)
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        self._jobs = None
        left = list(self.running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, *self.finished, return_exceptions=True)

    def _ended(self, task: asyncio.Task[T]) -> None:
        self.running.discard(task)
        self.finished.append(task)
        self.changed.set()
        if task.cancelled() or task.exception() is not None:
            self._jobs = None
        self.fill()
