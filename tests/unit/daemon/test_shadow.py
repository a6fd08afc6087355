"""The shadow: what pairs it makes of answers and failures, and what becomes of prompts whose pair cannot be scored."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.shadow import Shadow, ShadowSettings
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.events import AdapterVerified, Event, RolloutAborted, ShadowScored
from tests.machine_plays import AUTO, a_round, play
from tests.shadow_plays import Judge, Versions, fill


class Shadowing:
    """A rollout of `new` in its shadow, and the time."""

    def __init__(self, versions: Versions, prompts: int = 0) -> None:
        self.state, _ = play(AUTO, *a_round(1, "new"), AdapterVerified("new", 1))
        self.scored: list[ShadowScored] = []
        self.versions, self.judge = versions, Judge()
        self.store = MemoryStore(held_out_fraction=0.001)
        self.prompts = fill(self.store, prompts)
        self.now = 0.0
        self.shadow = Shadow(
            self.store,
            versions,  # type: ignore[arg-type]
            self.judge,  # type: ignore[arg-type]
            ShadowSettings(200, 4, 1.0),
            post=self.post,
            monotonic=lambda: self.now,
        )

    def post(self, event: Event) -> None:
        assert isinstance(event, ShadowScored)
        self.scored.append(event)
        self.state = advance(self.state, event, AUTO, 5.0).state

    async def ask(self, passes: int = 1, seconds: float = 300.0) -> None:
        for _ in range(passes):
            await self.shadow.ask_some(self.state)
            self.now += seconds

    async def fresh(self) -> int:
        return (await self.store.stats()).train_available

    @property
    def pairs(self) -> int:
        return sum(len(event.pairs) for event in self.scored)

    @property
    def asked(self) -> list[str]:
        """The prompts that the incumbent got, in order."""
        return [prompt for name, prompt in self.versions.asked if name == "base"]


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
    rig = Shadowing(Versions(base=incumbent, new=candidate), prompts=1)
    await rig.ask()
    (pair,) = rig.scored[0].pairs
    assert (pair.difference, pair.candidate_failed) == (difference, failed)


@pytest.mark.parametrize(
    ("incumbent", "candidate"),
    [("down", "good"), ("down", "down"), ("refused", "refused"), ("good", "unscorable"), ("good", "nan")],
)
async def test_what_says_nothing_about_the_candidate_is_skipped_and_counted(incumbent: str, candidate: str) -> None:
    rig = Shadowing(Versions(base=incumbent, new=candidate), prompts=4)
    await rig.ask()
    assert (rig.scored[0].pairs, rig.scored[0].skipped) == ((), 4)
    assert rig.state.rollout is not None
    assert rig.state.rollout.phase.is_open


@pytest.mark.parametrize("candidate", ["404", "403", "401", "down 404"])
async def test_a_server_that_lacks_the_adapter_or_refuses_us_says_nothing_about_the_candidate(candidate: str) -> None:
    """As after a restart of it, before the keeper has loaded the candidate again."""
    rig = Shadowing(Versions(base="good", new=candidate), prompts=1)
    await rig.ask()
    assert (rig.scored[0].pairs, rig.scored[0].skipped) == ((), 1)


async def test_no_prompt_is_asked_twice_and_each_goes_to_both() -> None:
    rig = Shadowing(Versions(), prompts=12)
    await rig.ask(passes=4)
    new = [prompt for name, prompt in rig.versions.asked if name == "new"]
    assert len(set(new)) == len(new) == 12
    assert sorted(new) == sorted(rig.asked)


@pytest.mark.parametrize("what", ["server", "adapter", "judge", "trust"])
async def test_while_nothing_can_be_scored_no_prompt_is_used_up_and_less_and_less_is_asked(what: str) -> None:
    rig = Shadowing(Versions(), prompts=40)
    rig.versions.behaviour = {"server": {"base": "down", "new": "down"}, "adapter": {"new": "404"}}.get(what, {})
    rig.judge.is_down, rig.judge.is_untrusted = what == "judge", what == "trust"
    moments: list[float] = []
    while rig.now < 1500.0:
        before = len(rig.scored)
        await rig.shadow.ask_some(rig.state)
        moments += [rig.now] * (len(rig.scored) - before)
        rig.now += 5.0
    assert moments == [0.0, 5.0, 15.0, 35.0, 75.0, 155.0, 315.0, 615.0, 915.0, 1215.0]
    assert await rig.fresh() == 40
    assert "no pair could be scored" in rig.shadow.doing
    rig.versions.behaviour, rig.judge.is_down, rig.judge.is_untrusted = {}, False, False
    await rig.ask(passes=11)
    assert rig.pairs == 40
    assert await rig.fresh() == 0


async def test_after_a_failure_the_pause_is_over_for_another_rollout_and_begins_anew_after_a_success() -> None:
    rig = Shadowing(Versions(base="down", new="good", newer="good"), prompts=40)
    await rig.ask(passes=3, seconds=40.0)
    rig.versions.behaviour["base"] = "good"
    await rig.ask(seconds=0.0)
    rig.versions.behaviour["base"] = "down"
    await rig.ask(seconds=0.0)
    assert "after 5 s" in rig.shadow.doing
    newer = (RolloutAborted("ann", "x"), *a_round(2, "newer"), AdapterVerified("newer", 1))
    rig.state, _ = play(AUTO, *newer, state=rig.state)
    rig.versions.behaviour["base"] = "good"
    before = rig.pairs
    await rig.ask(seconds=0.0)
    assert rig.pairs == before + 4


async def test_a_prompt_that_can_never_be_scored_is_asked_thrice_after_all_others_and_left_to_train() -> None:
    rig = Shadowing(Versions(), prompts=14)
    rig.versions.too_long = {rig.prompts[-1], rig.prompts[-2]}
    await rig.ask(passes=30)
    assert rig.pairs == 12
    assert [rig.asked.count(each) for each in rig.prompts] == 12 * [1] + 2 * [3]
    assert rig.asked[-1] in rig.versions.too_long
    assert await rig.fresh() == 2
    assert "2 cannot be scored" in rig.shadow.doing


async def test_prompts_that_are_to_blame_keep_nobody_from_being_asked() -> None:
    """The newest are asked first: more of them than are asked at once, and no other is scored beside them."""
    rig = Shadowing(Versions(), prompts=14)
    rig.versions.too_long = set(rig.prompts[-8:])
    await rig.ask(passes=4)
    assert rig.pairs == 6


async def test_a_buffer_that_takes_nothing_back_gets_it_later() -> None:
    rig = Shadowing(Versions(base="down"), prompts=10)
    returning = rig.store.return_shadowed

    async def fail(ids: Sequence[str]) -> None:
        raise PromptStoreError("the disk is full")

    rig.store.return_shadowed = fail  # type: ignore[method-assign]
    await rig.ask(passes=2)
    assert await rig.fresh() == 6
    assert "the buffer does not answer" in rig.shadow.doing
    rig.store.return_shadowed = returning  # type: ignore[method-assign]
    await rig.ask()
    assert await rig.fresh() == 10
