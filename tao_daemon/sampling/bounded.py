"""Many coroutines, a few at a time, one deadline, nothing left behind.

start up to `limit` → wait for any → yield → start more → … → done | deadline | closed: the rest is cancelled
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


async def as_finished(
    jobs: Iterator[Coroutine[Any, Any, T]], *, limit: int, deadline: float
) -> AsyncGenerator[T, None]:
    """Results in the order they finish. `jobs` is consumed lazily, `deadline` is in the loop's time.

    Raises TimeoutError at the deadline, or the first job's exception. Close it (`contextlib.aclosing`) and
    every started job has ended.
    """
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[T]] = set()
    try:
        while True:
            pending |= {loop.create_task(job) for job in islice(jobs, limit - len(pending))}
            if not pending:
                return
            timeout = max(0.0, deadline - loop.time())
            done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError
            for task in done:
                yield task.result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
