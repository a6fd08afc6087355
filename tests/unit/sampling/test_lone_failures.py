"""A prompt that fails alone, and a server that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest

from tao_daemon.domain.errors import UpstreamError
from tao_daemon.sampling.lone_failures import Questions

Behaviour = Callable[[int, int], str | int | None]
"""Takes a place and how often it was asked before; an answer, None for a refusal, or the status of an error."""


async def one_by_one(jobs: Iterator[Coroutine[Any, Any, Any]], total: int) -> AsyncGenerator[Any, None]:
    for job in jobs:
        yield await job


async def asked(count: int, behave: Behaviour, *, outage: int = 3) -> Mapping[int, str | None]:
    before: Counter[int] = Counter()

    async def ask(place: int) -> str | None:
        said = behave(place, before[place])
        before[place] += 1
        if isinstance(said, int):
            raise UpstreamError("failed", said)
        return said

    return await Questions(count, ask, one_by_one, outage=outage).answered()


async def test_all_are_answered() -> None:
    assert await asked(3, lambda place, before: str(place)) == {0: "0", 1: "1", 2: "2"}


async def test_a_prompt_that_failed_once_is_asked_again() -> None:
    assert await asked(3, lambda place, before: 503 if place == 1 and not before else "yes") == dict.fromkeys(
        (0, 1, 2), "yes"
    )


@pytest.mark.parametrize("bad", [{1}, {3}, {0, 1}, {2, 3, 4, 5, 6, 7, 8, 9}])
async def test_prompts_that_fail_twice_while_others_are_answered_are_left_out(bad: set[int]) -> None:
    found = await asked(10, lambda place, before: 500 if place in bad else "yes")
    assert set(found) == set(range(10)) - bad


async def test_a_server_that_dies_is_an_outage_however_many_answered_before() -> None:
    count = 0

    def dies(place: int, before: int) -> str | int:
        nonlocal count
        count += 1
        return "yes" if count <= 8 else 503

    with pytest.raises(UpstreamError) as caught:
        await asked(10, dies)
    assert caught.value.status == 503


async def test_a_server_that_dies_before_the_second_try_is_an_outage() -> None:
    with pytest.raises(UpstreamError):
        await asked(3, lambda place, before: 500 if place == 1 or before == 1 else "yes")


async def test_a_refusal_says_nothing_of_the_others() -> None:
    with pytest.raises(UpstreamError):
        await asked(3, lambda place, before: None if place == 0 else 503)
    assert await asked(3, lambda place, before: None if place == 0 else "yes") == {0: None, 1: "yes", 2: "yes"}


@pytest.mark.parametrize("status", [401, 404])
async def test_what_is_denied_once_is_an_error(status: int) -> None:
    with pytest.raises(UpstreamError) as caught:
        await asked(3, lambda place, before: status if place == 1 else "yes")
    assert caught.value.status == status


async def test_nothing_asked_is_nothing_found() -> None:
    assert await asked(0, lambda place, before: "yes") == {}
