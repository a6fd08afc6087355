"""The watch: which pairs a shadow makes of answers and failures, and when a look is worth an entry."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Sequence

import pytest

from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.rollout_watch import RolloutWatch, WatchSettings
from tao_daemon.daemon.state import State
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.completion import REFUSED, Answer
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.events import AdapterVerified, Event, RolloutPromoted, ShadowScored, TrafficMeasured
from tao_daemon.domain.ports import Ingest
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.traffic import GatewayReport
from tests.machine_plays import AUTO, a_round, play


class Versions:
    """A sampler whose versions answer, refuse or fail as told; several words are what they do time after time."""

    def __init__(self, **behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked: list[tuple[str, str]] = []

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        name = model or "base"
        self.asked += [(name, prompt.id) for prompt in prompts]
        first, _, later = self.behaviour.get(name, "good").partition(" ")
        does, self.behaviour[name] = first, later or first
        if does == "down":
            raise UpstreamError("no answer")
        if does.isdigit():
            raise UpstreamError("an error", int(does))
        return [Answer(does, 3, REFUSED if does == "refused" else "stop") for _ in prompts]

    def sample(self, *_: object, **__: object) -> object:
        raise AssertionError("a shadow asks for answers only")


class Judge:
    def judges(self, prompt: Prompt) -> bool:
        return True

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        scores = {"good": 1.0, "poor": 0.25, "unscorable": None, "nan": float("nan")}
        return [scores[text] for text in texts]


class Daemon:
    """Just the state and the mailbox of one."""

    def __init__(self, versions: Versions) -> None:
        self.state, _ = play(AUTO, *a_round(1, "new"), AdapterVerified("new", 1))
        self.events: list[Event] = []
        self.store = MemoryStore(held_out_fraction=0.001)
        self.board = TrafficBoard(10.0, lambda: 0.0)
        self.watch = RolloutWatch(
            self.board,
            self.store,
            versions,  # type: ignore[arg-type]
            Judge(),  # type: ignore[arg-type]
            WatchSettings(0.01, 200, 4, 1.0),
            policy=AUTO,
            state=lambda: self.state,
            post=self.post,
            clock=lambda: 5.0,
        )

    def post(self, event: Event) -> None:
        self.events.append(event)
        self.state = advance(self.state, event, AUTO, 5.0).state
        self.watch.nudge()

    def fill(self, count: int) -> None:
        texts = ["".join(random.Random(n).choices(string.ascii_lowercase, k=60)) for n in range(count)]
        prompts = (
            Prompt(s.prompt_id, {"messages": [{"role": "user", "content": text}]}, s, float(n))
            for n, text in enumerate(texts)
            for s in [Source("t", 0, n)]
        )
        self.store.submit(Ingest(tuple(prompts), {})).result()

    async def run_until(self, done: object, seconds: float = 5.0) -> None:
        task = asyncio.create_task(self.watch.run())
        try:
            async with asyncio.timeout(seconds):
                while not done():  # type: ignore[operator]
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def scored(self) -> list[ShadowScored]:
        return [event for event in self.events if isinstance(event, ShadowScored)]


@pytest.mark.parametrize(
    ("incumbent", "candidate", "difference", "failed"),
    [
        ("good", "good", 0.0, False),
        ("good", "poor", -0.75, False),
        ("good", "down", -1.0, True),
        ("good", "500", -1.0, True),
        ("good", "refused", -1.0, True),
        ("good", "down good", 0.0, False),
    ],
)
async def test_pairs(incumbent: str, candidate: str, difference: float, failed: bool) -> None:
    daemon = Daemon(Versions(base=incumbent, new=candidate))
    daemon.fill(1)
    await daemon.run_until(lambda: daemon.scored)
    pair = daemon.scored[0].pairs[0]
    assert (pair.difference, pair.candidate_failed) == (difference, failed)


@pytest.mark.parametrize(
    ("incumbent", "candidate"),
    [("down", "good"), ("down", "down"), ("refused", "refused"), ("good", "unscorable"), ("good", "nan")],
)
async def test_what_says_nothing_about_the_candidate_is_skipped_and_counted(incumbent: str, candidate: str) -> None:
    daemon = Daemon(Versions(base=incumbent, new=candidate))
    daemon.fill(4)
    await daemon.run_until(lambda: daemon.scored)
    assert daemon.scored[0].pairs == ()
    assert daemon.scored[0].skipped > 0
    assert daemon.state.rollout is not None
    assert daemon.state.rollout.phase.is_open


@pytest.mark.parametrize("candidate", ["404", "403", "401", "down 404"])
async def test_a_server_that_lacks_the_adapter_or_refuses_us_says_nothing_about_the_candidate(candidate: str) -> None:
    """As after a restart of it, before the keeper has loaded the candidate again."""
    daemon = Daemon(Versions(base="good", new=candidate))
    daemon.fill(1)
    await daemon.run_until(lambda: daemon.scored)
    assert daemon.scored[0].pairs == ()
    assert daemon.state.rollout is not None
    assert daemon.state.rollout.evidence.shadow.candidate_failures == 0
    assert daemon.state.rollout.evidence.shadow.skipped == 1


async def test_without_prompts_it_waits_and_says_so() -> None:
    daemon = Daemon(Versions())
    await daemon.run_until(lambda: "waits for live prompts" in daemon.watch.shadowing)
    assert not daemon.scored
    assert daemon.state.rollout is not None
    assert "0 of 8 pairs" in daemon.state.rollout.hold


async def test_a_sick_buffer_does_not_keep_a_regression_from_being_seen() -> None:
    daemon = Daemon(Versions())

    async def never(*_: object) -> Sequence[Prompt]:
        await asyncio.sleep(60)
        return ()

    daemon.store.claim_shadow = never  # type: ignore[method-assign]
    daemon.board.hear(GatewayReport("g", 1))
    await daemon.run_until(lambda: any(isinstance(event, TrafficMeasured) for event in daemon.events))


async def test_no_prompt_is_asked_twice_and_each_goes_to_both() -> None:
    versions = Versions()
    daemon = Daemon(versions)
    daemon.fill(12)
    await daemon.run_until(lambda: sum(len(event.pairs) for event in daemon.scored) >= 8)
    new = [prompt for name, prompt in versions.asked if name == "new"]
    old = [prompt for name, prompt in versions.asked if name == "base"]
    assert len(set(new)) == len(new)
    assert sorted(new) == sorted(old)


async def test_a_hold_is_journaled_once_however_often_it_is_looked_at() -> None:
    daemon = Daemon(Versions())
    task = asyncio.create_task(daemon.watch.run())
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(daemon.events) == 1


async def test_baking_is_compared_with_what_was_replaced() -> None:
    versions = Versions()
    daemon = Daemon(versions)
    promote = RolloutPromoted("ann", "x")
    daemon.state, _ = play(AUTO, promote, promote, promote, state=daemon.state)
    assert isinstance(daemon.state, State)
    assert daemon.state.routes.adapter == "new"
    daemon.fill(4)
    await daemon.run_until(lambda: daemon.scored)
    assert {name for name, _ in versions.asked} == {"base", "new"}
