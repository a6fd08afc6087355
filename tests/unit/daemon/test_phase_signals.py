"""A training tells how it ended, whatever that is: with real children, that fail or are in the middle of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tao_daemon.config import parse_config
from tao_daemon.daemon.phases import RoundWork
from tao_daemon.daemon.round_parts import Parts, RoundSettings
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.errors import NothingSampled, PassTimeout, ServerUnfit, UpstreamError
from tao_daemon.domain.events import PhaseCompleted, PhaseFailed
from tao_daemon.domain.round import Phase, RoundState
from tao_daemon.domain.signals import SamplesMeasured, Signal, TrainingEnded, TrainingStepped, discard
from tao_daemon.learning.subprocess_trainer import SubprocessTrainer
from tao_daemon.registry.round_archive import RoundArchive
from tao_daemon.rollout.memory_fleet import MemoryFleet

RUNNING = RoundState(1, Phase.TRAINING, 1, "tests", 1.0, None)
SETTINGS = RoundSettings(
    prompts=4,
    rehearsed_prompts=0,
    carried_rounds=1,
    tenant_share=1.0,
    held_out_prompts=4,
    gate_min_prompts=1,
    divergence_prompts=0,
    shows_examples=False,
    min_groups=1,
    min_spread=0.05,
    sampling_limit=16,
    outage_seconds=60.0,
    base_seed=0,
    base_model="base",
    config_digest="digest",
)


def training(tmp_path: Path, heard: list[Signal], *command: str) -> RoundWork:
    """A round whose scores are there, and whose trainer is `command`."""
    archive = RoundArchive(tmp_path)
    completions = tuple(Completion(n, "plain", "t", (5,), (-0.5,), "stop") for n in range(2))
    group = CompletionGroup("p", (1, 2), completions)
    archive.append_group(1, group)
    archive.finish_sampling(1)
    archive.write_scores(1, [ScoredGroup(group, (1.0, 0.0), ("ticket",))])
    settings = parse_config({"training": {"command": list(command), "timeout_seconds": 60}}).training
    trainer = SubprocessTrainer(settings, archive.training_directory, grace_seconds=1.0)
    nothing: Any = None
    parts = Parts(nothing, nothing, nothing, nothing, trainer, nothing, nothing, nothing, archive)
    return RoundWork(parts, SETTINGS, emit=heard.append, clock=lambda: 1.0)


async def test_a_training_that_fails(tmp_path: Path) -> None:
    heard: list[Signal] = []
    event = await training(tmp_path, heard, "false").run(RUNNING)
    assert isinstance(event, PhaseFailed)
    ended = heard[-1]
    assert isinstance(ended, TrainingEnded)
    assert (ended.outcome, ended.metrics) == ("failed", {})
    assert 0.0 < ended.seconds < 60.0


async def test_the_deadline_of_a_pass_is_no_outage_to_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[RoundState] = []

    async def overruns(running: RoundState) -> Any:
        tries.append(running)
        raise PassTimeout("3 of 4 prompts had no answer")

    work = training(tmp_path, [], "false")
    monkeypatch.setattr(work, "_attempt", overruns)
    async with asyncio.timeout(20):
        event = await work.run(RUNNING)
    assert isinstance(event, PhaseFailed)
    assert len(tries) == 1


async def test_no_prompt_is_to_blame_for_a_server_that_stays_away_or_refuses_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = training(tmp_path, [], "false")
    assert (await work.run(RUNNING)) == PhaseFailed(1, 1, Phase.TRAINING, ANY, blameless=False)

    async def away(running: RoundState) -> Any:
        raise UpstreamError("nobody listens")

    async def refused(running: RoundState) -> Any:
        raise NothingSampled("none of 64 prompts")

    async def unfit(running: RoundState) -> Any:
        raise ServerUnfit("start it with --enable-lora")

    monkeypatch.setattr(work, "_attempt", refused)
    assert await work.run(RUNNING) == PhaseFailed(1, 1, Phase.TRAINING, "none of 64 prompts", blameless=True)
    monkeypatch.setattr(work, "_attempt", unfit)
    assert await work.run(RUNNING) == PhaseFailed(1, 1, Phase.TRAINING, "start it with --enable-lora", blameless=True)
    monkeypatch.setattr(work, "_attempt", away)
    monkeypatch.setattr(work, "_settings", replace(SETTINGS, outage_seconds=0.0))
    assert await work.run(RUNNING) == PhaseFailed(1, 1, Phase.TRAINING, "nobody listens", blameless=True)


async def test_a_sampling_that_ended_unheard_is_told_whole(tmp_path: Path) -> None:
    """The process ended between the table and the journal."""
    heard: list[Signal] = []
    work = training(tmp_path, heard, "false")
    event = await work.run(replace(RUNNING, phase=Phase.SAMPLING))
    assert isinstance(event, PhaseCompleted)
    (told,) = heard
    assert isinstance(told, SamplesMeasured)
    numbers = RoundArchive(tmp_path).report(1)["phases"]["sampling"]
    assert numbers["completions"] == 2
    assert {*told.meters} <= {*numbers}


def sampling(tmp_path: Path, groups: int, fleet: MemoryFleet) -> RoundWork:
    """A round that has sampled some groups, and whose sampler does not get further."""
    archive = RoundArchive(tmp_path)
    for number in range(groups):
        archive.append_group(1, CompletionGroup(f"p{number}", (1,), ()))
    nothing: Any = None
    parts = Parts(nothing, nothing, nothing, nothing, nothing, nothing, nothing, fleet, archive)
    return RoundWork(parts, replace(SETTINGS, min_groups=3, outage_seconds=0.0), emit=discard, clock=lambda: 1.0)


@pytest.mark.parametrize("error", [UpstreamError("16 prompts in a row"), PassTimeout("1 of 4 prompts")])
@pytest.mark.parametrize(("groups", "down", "goes_on"), [(3, False, True), (2, False, False), (3, True, False)])
async def test_prompts_that_never_find_an_answer_cost_themselves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, groups: int, down: bool, goes_on: bool
) -> None:
    """Where the servers are there, and what was sampled is enough."""

    async def stuck(running: RoundState) -> Any:
        raise error

    fleet = MemoryFleet(["http://vllm"])
    if down:
        fleet.down.add("http://vllm")
    work = sampling(tmp_path, groups, fleet)
    monkeypatch.setattr(work, "_training_prompts", stuck)
    async with asyncio.timeout(20):
        event = await work.run(replace(RUNNING, phase=Phase.SAMPLING))
    if goes_on:
        assert isinstance(event, PhaseCompleted)
        assert event.detail == "3 groups sampled"
    else:
        assert isinstance(event, PhaseFailed)
        assert event.reason == str(error)
        assert event.blameless is isinstance(error, UpstreamError)


async def test_a_training_that_is_cancelled(tmp_path: Path) -> None:
    heard: list[Signal] = []
    step = '{"event": "progress", "step": 1, "steps": 2, "loss": 0.5, "kl": 0.1}'
    task = asyncio.create_task(training(tmp_path, heard, "sh", "-c", f"echo '{step}'; exec sleep 60").run(RUNNING))
    async with asyncio.timeout(20):
        while TrainingStepped(1, 2, 0.5, 0.1) not in heard:
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(heard[-1], TrainingEnded)
    assert heard[-1].outcome == "cancelled"
