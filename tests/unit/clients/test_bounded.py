"""A few coroutines at a time, a deadline, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from tao_daemon.clients.bounded import as_finished, together


class Meter:
    """Jobs that count how many of them run."""

    def __init__(self) -> None:
        self.running = self.most = self.started = self.ended = 0

    async def job(self, seconds: float, value: int = 0) -> int:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
            return value
        finally:
            self.running -= 1
            self.ended += 1


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_results_come_as_they_finish_and_never_more_run_than_allowed() -> None:
    meter = Meter()
    delays = [0.08, 0.01, 0.02, 0.01, 0.01, 0.01]
    jobs = (meter.job(delay, place) for place, delay in enumerate(delays))
    found = [value async for value in as_finished(jobs, limit=2, deadline=soon(5))]
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert found[0] == 1
    assert meter.most == 2


async def test_at_the_deadline_everything_is_cancelled() -> None:
    meter = Meter()
    with pytest.raises(TimeoutError):
        async for _ in as_finished((meter.job(30) for _ in range(5)), limit=3, deadline=soon(0.05)):
            pass
    assert (meter.started, meter.ended) == (3, 3)


async def test_closing_early_leaves_no_task() -> None:
    meter = Meter()
    jobs = (meter.job(0.0 if place == 0 else 30) for place in range(9))
    async with aclosing(as_finished(jobs, limit=4, deadline=soon(5))) as finished:
        await anext(finished)
    assert meter.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_the_consumers_cancellation_reaches_the_jobs() -> None:
    meter = Meter()

    async def consume() -> None:
        async with aclosing(as_finished(iter([meter.job(30)]), limit=1, deadline=soon(60))) as finished:
            async for _ in finished:
                pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (meter.started, meter.ended) == (1, 1)


async def test_a_bug_in_a_job_propagates_and_ends_the_others() -> None:
    meter = Meter()

    async def bug() -> int:
        raise KeyError("bug")

    def jobs() -> Iterator[object]:
        yield meter.job(30)
        yield bug()

    with pytest.raises(KeyError):
        async for _ in as_finished(jobs(), limit=2, deadline=soon(5)):  # type: ignore[arg-type]
            pass
    assert meter.running == 0


async def test_no_jobs_is_no_wait() -> None:
    assert [value async for value in as_finished(iter(()), limit=2, deadline=soon(5))] == []


async def test_slots_are_filled_while_the_consumer_is_busy() -> None:
    meter = Meter()
    async with aclosing(as_finished((meter.job(0.01) for _ in range(9)), limit=2, deadline=soon(5))) as finished:
        await anext(finished)
        await asyncio.sleep(0.1)
        # The one that was taken, those that wait to be, and not all.
        assert 3 <= meter.ended <= 4
        assert meter.running == 0
        assert len([value async for value in finished]) == 8


async def test_after_a_failure_no_job_starts() -> None:
    meter = Meter()

    async def fail() -> int:
        raise KeyError("bug")

    def jobs() -> Iterator[Coroutine[Any, Any, int]]:
        yield fail()
        while True:
            yield meter.job(0.0)

    async with aclosing(as_finished(jobs(), limit=1, deadline=soon(5))) as finished:
        with pytest.raises(KeyError):
            await anext(finished)
    assert meter.started == 0


async def test_together_gives_results_in_the_order_of_the_jobs() -> None:
    meter = Meter()
    assert await together(meter.job(0.02 - 0.01 * place, place) for place in range(3)) == [0, 1, 2]
    assert meter.most == 3


async def test_together_the_first_failure_ends_the_others() -> None:
    meter = Meter()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        await together([meter.job(30), fail(), meter.job(30)])
    assert (meter.started, meter.ended) == (2, 2)


async def test_together_a_cancellation_that_comes_after_a_failure_is_not_lost() -> None:
    """As a round that is cancelled while its judge is down, and a reward model takes its time to end."""
    failed = asyncio.Event()

    async def fail() -> int:
        failed.set()
        raise KeyError("down")

    async def slow_to_end() -> int:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.1)
        return 0

    task = asyncio.create_task(together([slow_to_end(), fail()]))
    await failed.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
