"""A round asks for prompts only where it will find them, and uses none up that it cannot use."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.app.settings import round_settings
from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.config import parse_config
from tao_daemon.daemon import scheduler
from tao_daemon.daemon.claims import RoundClaims, missing_prompts
from tao_daemon.daemon.phases import RoundWork
from tao_daemon.daemon.round_parts import Parts
from tao_daemon.daemon.scheduler import RoundScheduler
from tao_daemon.daemon.state import State
from tao_daemon.domain.errors import ServerUnfit
from tao_daemon.domain.events import Event, PhaseCompleted, PhaseFailed, RoundRequested
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.round import ClosingRound, Outcome, Phase, RoundState
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.rollout.memory_fleet import MemoryFleet

CONFIG = parse_config(
    {
        "round": {"prompts": 20, "tenant_share": 0.5, "rehearsal_fraction": 0.0, "min_new_prompts": 50},
        "gate": {"prompts": 20, "min_prompts": 20},
        "training": {"min_groups": 4},
    }
)
SETTINGS = round_settings(CONFIG)


def matched(prompt: Prompt) -> bool:
    return prompt.conversation == "matched"


CLAIMS = RoundClaims(SETTINGS, matched, matched)


class Filled(MemoryStore):
    """Half of it held out; every prompt unlike the others."""

    def __init__(self) -> None:
        super().__init__(held_out_fraction=0.5, max_attempts=2)
        self.offset = 0

    def put(self, count: int, *, conversation: str = "matched", tenant: str = "") -> None:
        made = [self._prompt(tenant, conversation) for _ in range(count)]
        self.submit(Ingest(tuple(made), {}))

    def _prompt(self, tenant: str, conversation: str) -> Prompt:
        self.offset += 1
        text = "".join(random.Random(self.offset).choices(string.ascii_lowercase, k=60))
        return Prompt(
            f"p{self.offset}", {"prompt": text}, Source("t", 0, self.offset), float(self.offset), tenant, conversation
        )


@pytest.fixture
def store() -> Filled:
    return Filled()


async def test_prompts_that_no_scorer_matches_are_no_round(store: Filled) -> None:
    store.put(200, conversation="other")
    store.put(2)
    assert "fresh training prompts that a scorer matches, with no tenant above" in str(
        await missing_prompts(store, CLAIMS)
    )
    store.put(24)
    assert "held-out prompts that the gate's scorers judge" in str(await missing_prompts(store, CLAIMS))
    store.put(60)
    assert await missing_prompts(store, CLAIMS) is None


async def test_prompts_beyond_a_tenants_share_are_no_gate(store: Filled) -> None:
    store.put(200, tenant="loud")
    store.put(4, tenant="quiet")
    assert "with no tenant above round.tenant_share" in str(await missing_prompts(store, CLAIMS))
    store.put(40, tenant="quiet")
    assert await missing_prompts(store, CLAIMS) is None


@pytest.fixture
async def started(store: Filled, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The posts and the scheduler that makes them, once it runs; it looks again with every batch."""
    posts: list[Event] = []
    looks: list[int] = []
    monkeypatch.setattr(scheduler, "_PULSE_SECONDS", 0.05)

    class Counting(Filled):
        async def claimable(self, *arguments: Any) -> int:
            looks.append(1)
            return await store.claimable(*arguments)

        async def stats(self) -> Any:
            return await store.stats()

    made = RoundScheduler(
        CONFIG.round,
        Counting(),
        claims=CLAIMS,
        policy=Any,  # type: ignore[arg-type]
        state=State,
        post=posts.append,
        clock=asyncio.get_running_loop().time,
    )
    task = asyncio.create_task(made.run())
    yield made, posts, looks
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_the_scheduler_waits_for_prompts_that_a_round_can_use(store: Filled, started: Any) -> None:
    made, posts, looks = started
    store.put(300, conversation="other")
    made.nudge()
    await until(lambda: "that a scorer matches" in made.reason)
    assert made.lacks_prompts
    asked = len(looks)
    for _ in range(5):
        made.nudge()
        await asyncio.sleep(0.03)
    assert len(looks) == asked, "nothing came, so nothing is looked up again"
    assert posts == []
    store.put(100)
    await until(lambda: bool(posts))
    assert isinstance(posts[0], RoundRequested)
    assert not made.lacks_prompts


async def test_prompts_too_few_by_count_are_no_fault_of_scorers(store: Filled, started: Any) -> None:
    made, posts, looks = started
    store.put(3, conversation="other")
    made.nudge()
    await until(lambda: made.reason != "starting")
    assert (made.lacks_prompts, posts, looks) == (False, [], [])


@pytest.fixture
def work(store: Filled, tmp_path: Path) -> RoundWork:
    class Scorer:
        accepts = judges = staticmethod(matched)

    nothing: Any = None
    scorer: Any = Scorer()
    archive = RoundArchive(tmp_path)
    parts = Parts(store, nothing, scorer, scorer, nothing, nothing, nothing, MemoryFleet(), archive)
    return RoundWork(parts, SETTINGS, emit=lambda signal: None, clock=lambda: 1.0)


def claiming(number: int) -> RoundState:
    return RoundState(number, Phase.CLAIMING, 1, "tests", 1.0, None)


async def test_a_server_that_serves_no_adapter_is_found_out_before_anything_is_sampled(
    store: Filled, work: RoundWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(fleet: MemoryFleet) -> None:
        raise ServerUnfit("start it with --enable-lora")

    store.put(60)
    before = await store.stats()
    monkeypatch.setattr(MemoryFleet, "check", check)
    event = await work.run(claiming(1))
    assert event == PhaseFailed(1, 1, Phase.CLAIMING, "start it with --enable-lora", blameless=True)
    await work.put_away(ClosingRound(claiming(1), Outcome.FAILED, event.reason, blameless=True))
    assert await store.stats() == before


async def test_a_round_that_finds_too_few_leaves_them_as_they_were(store: Filled, work: RoundWork) -> None:
    store.put(5)
    before = await store.stats()
    for number in range(1, 6):
        event = await work.run(claiming(number))
        assert isinstance(event, PhaseFailed)
        assert "a round needs 4" in event.reason
        await work.put_away(ClosingRound(claiming(number), Outcome.FAILED, event.reason))
    assert await store.stats() == before
    store.put(25)
    event = await work.run(claiming(6))
    assert isinstance(event, PhaseFailed)
    assert "the gate needs 20" in event.reason
    await work.put_away(ClosingRound(claiming(6), Outcome.FAILED, event.reason))
    store.put(30)
    assert isinstance(await work.run(claiming(7)), PhaseCompleted)


@pytest.mark.parametrize(
    ("outcome", "blameless", "costs_a_try"),
    [
        (Outcome.REJECTED, False, True),
        (Outcome.INCONCLUSIVE, False, True),
        (Outcome.FAILED, False, True),
        (Outcome.FAILED, True, False),
        (Outcome.CANCELLED, False, False),
    ],
)
async def test_prompts_lose_a_try_only_where_a_round_tells_of_them(
    outcome: Outcome, blameless: bool, costs_a_try: bool, store: Filled, work: RoundWork
) -> None:
    store.put(60)
    available = (await store.stats()).train_available
    for number in (1, 2):
        assert isinstance(await work.run(claiming(number)), PhaseCompleted)
        running = replace(claiming(number), phase=Phase.SAMPLING)
        await work.put_away(ClosingRound(running, outcome, "tests", blameless))
    tried_twice = 2 * SETTINGS.prompts - available
    assert available - (await store.stats()).train_available == (tried_twice if costs_a_try else 0) < available
