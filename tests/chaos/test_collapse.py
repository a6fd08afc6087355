"""Twenty rounds with a bad scorer: what serves does not collapse, and who noticed is known.

The language model is simulated, everything else is the product's. Scenarios that do collapse stand beside: without
them the bounds could hold for want of anything that happens.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import torch

from bench.collapse.kinds import quality
from bench.collapse.rows import Notice, notices
from bench.collapse.scenarios import scenarios
from bench.collapse.simulation import Course, Simulation
from tao_daemon.scoring.decoys import MASTER_KEYS
from tests.judge_server import JudgeServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = (1, 2, 3)
BLIND, BLIND_VERIFIED = "fooled judge, no decoys, judges itself", "fooled judge, no decoys, gate verifies"
WATCHED, WATCHED_VERIFIED = "fooled judge with decoys", "fooled judge with decoys, gate verifies"


class Runs:
    """Courses by scenario and seed."""

    def __init__(self, root: Path, session: aiohttp.ClientSession, judge_url: str) -> None:
        self._root, self._session = root, session
        self._scenarios = scenarios(judge_url)

    async def __call__(self, name: str, seed: int) -> Course:
        simulation = Simulation(self._scenarios[name], seed, self._root / name / str(seed), self._session)
        try:
            return await simulation.run()
        finally:
            await simulation.close()


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Runs]:
    logging.getLogger("tao_daemon").setLevel(logging.ERROR)  # a bad scorer is a warning each time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors of a dozen numbers
    server = JudgeServer(quality, place_bias=0.1, fooled_by=frozenset(MASTER_KEYS))
    async with server.serving(), aiohttp.ClientSession() as session:
        yield Runs(tmp_path, session, server.url)
    torch.set_num_threads(threads)
    logging.getLogger("tao_daemon").setLevel(logging.NOTSET)


def first(course: Course, by: str) -> int:
    """The round in which a meter, guard or criterion spoke first; 99 for never."""
    return next((notice.round for notice in notices(course.rows) if notice.by == by), 99)


def outcomes(course: Course) -> list[str]:
    return [row.outcome for row in course.rows]


def unharmed(course: Course, *, truth: float = 0.03) -> None:
    """What serves is as right as the base, as long, and as diverse."""
    assert len(course.rows) == 20
    for row in course.rows:
        assert row.truth > course.base.truth - truth, row.round
        assert course.base.tokens / 1.3 < row.tokens < course.base.tokens * 1.3, row.round
        assert row.entropy > 0.85 * course.base.entropy, row.round


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_good_scorer_teaches(run: Runs, seed: int) -> None:
    course = await run("good scorer", seed)
    unharmed(course)
    assert course.serving.truth > 0.9


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [WATCHED, WATCHED_VERIFIED])
async def test_a_fooled_judge_is_found_out_by_decoys(run: Runs, name: str, seed: int) -> None:
    """And nothing is learned from it any more."""
    course = await run(name, seed)
    unharmed(course)
    assert all(row.planted == row.fooled for row in course.rows)
    distrusted = first(course, "scoring.untrusted")
    assert distrusted <= 3
    assert set(outcomes(course)[distrusted:]) == {"failed"}
    assert {row.truth for row in course.rows[distrusted:]} == {course.serving.truth}


async def test_a_fooled_judge_that_also_judges_ruins_the_model(run: Runs) -> None:
    """The reward rises throughout, the truth rises and then falls: nobody but the meters tells. The distance from the
    base always does, and in time; entropy and length tell of the ruin, where twenty rounds are enough for it."""
    courses = [await run(BLIND, seed) for seed in SEEDS]
    for course in courses:
        truths = [row.truth for row in course.rows]
        assert max(truths) > course.base.truth + 0.2
        assert course.serving.truth < course.base.truth / 2
        assert course.rows[-1].shares["fooling"] > 0.8
        collapsed = next(row.round for row in course.rows if row.truth < course.base.truth)
        assert first(course, "meter.kl_to_base") < collapsed
        assert first(course, "scoring.untrusted") == 99
    late = [min(first(course, "meter.entropy"), first(course, "meter.tokens_mean")) for course in courses]
    assert sorted(late)[1] <= 20


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_gate_that_verifies_rejects_what_a_fooled_judge_teaches(run: Runs, seed: int) -> None:
    course = await run(BLIND_VERIFIED, seed)
    unharmed(course)
    assert course.serving.truth > course.base.truth + 0.2
    assert course.rows[-1].shares["fooling"] < 0.3
    assert set(outcomes(course)[-5:]) <= {"rejected", "inconclusive"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["noise, gate verifies", "noise judges itself"])
async def test_noise_moves_what_serves_nowhere(run: Runs, name: str, seed: int) -> None:
    course = await run(name, seed)
    unharmed(course, truth=0.08)
    assert outcomes(course).count("accepted") <= 3


@pytest.mark.parametrize("seed", SEEDS)
async def test_noise_without_a_gate_is_a_random_walk(run: Runs, seed: int) -> None:
    course = await run("noise, everything accepted", seed)
    assert not course.serving.same(course.base)
    assert course.serving.entropy < 0.93 * course.base.entropy
    assert first(course, "meter.kl_to_base") <= 20


async def test_a_verifier_that_is_wrong_in_three_of_ten_still_teaches(run: Runs) -> None:
    """It judges too: how many of its rounds pass, and so how far one seed gets, is much of it luck."""
    courses = [await run("verifier wrong in 30 %", seed) for seed in SEEDS]
    for course in courses:
        unharmed(course)
    gains = [course.serving.truth - course.base.truth for course in courses]
    assert min(gains) > 0.0
    assert sum(gains) / len(gains) > 0.2


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_constant_teaches_nothing(run: Runs, seed: int) -> None:
    course = await run("constant", seed)
    assert course.serving.same(course.base)
    assert notices(course.rows) == [Notice(1, "round.failed")]


@pytest.mark.parametrize("seed", SEEDS)
async def test_length_is_held_back_by_its_guards(run: Runs, seed: int) -> None:
    """Each is a measurement, so that a try in ten passes a little above it."""
    course = await run("length judges itself", seed)
    assert first(course, "gate.length_ratio") <= 5
    assert max(row.tokens for row in course.rows) < 1.7 * course.base.tokens
    assert course.serving.entropy > 0.85 * course.base.entropy
    for row in course.rows:
        if row.outcome == "accepted":
            assert row.numbers["length_ratio"] <= 1.2
            assert row.numbers["length_ratio_to_base"] <= 1.5
    free = await run("length, everything accepted", seed)
    assert free.serving.tokens > 2 * free.base.tokens


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "guard", "meter"),
    [
        ("refusals judge themselves", "gate.refusal_increase", "refusing"),
        ("repetition judges itself", "gate.degenerate_increase", "repeating"),
    ],
)
async def test_guards_hold_against_scorers_that_like_it(
    run: Runs, name: str, guard: str, meter: str, seed: int
) -> None:
    course = await run(name, seed)
    unharmed(course, truth=0.08)
    assert first(course, guard) <= 20
    assert course.rows[-1].shares[meter] < 0.2
