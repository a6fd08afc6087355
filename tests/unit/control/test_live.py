"""What a reader of live events is told, and from where on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tao_daemon.control.live import Happening, LiveFeed
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.journal_reader import ReadOnlyJournal
from tests.machine_plays import AUTO, settling


class Story:
    """A journal that goes on by a rollout's transition at a time, as `feed` is told."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.state = Journal(folder / "control.db"), State()
        self.events = iter(enumerate(settling(1, "a1")))
        self.feed = LiveFeed(ReadOnlyJournal(folder / "control.db"), lambda: None)

    def go_on(self) -> int:
        """The entry's number."""
        at, event = next(self.events)
        self.state = apply_event(self.journal, self.state, event, AUTO, 1000.0 + at).state
        self.feed.nudge()
        last = self.journal.last()
        assert last is not None
        return last.seq


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    story = Story(tmp_path)
    yield story
    story.journal.close()


async def first(happenings: AsyncIterator[Happening]) -> int | None:
    async with asyncio.timeout(10):
        return (await anext(happenings)).id


async def test_nothing_is_missed_between_the_question_and_the_first_event(story: Story) -> None:
    story.go_on()
    cursor = await story.feed.start(None)
    expected = story.go_on()
    assert await first(story.feed.follow(cursor)) == expected


@pytest.mark.parametrize(("after", "cursor"), [(None, 2), (0, 0), (1, 1), (99, 2)])
async def test_a_reader_goes_on_where_it_stopped(story: Story, after: int | None, cursor: int) -> None:
    story.go_on()
    assert story.go_on() == 2
    assert await story.feed.start(after) == cursor


async def test_a_closed_feed_ends_its_readers(story: Story) -> None:
    happenings = story.feed.follow(await story.feed.start(None))
    ended = asyncio.create_task(anext(happenings, None))
    await asyncio.sleep(0)
    story.feed.close()
    async with asyncio.timeout(10):
        assert await ended is None
