"""Short courses of the simulation: it learns, a constant moves nothing, the same seed gives the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from bench.collapse.scenarios import VERIFIER, python
from bench.collapse.simulation import Course, Scenario, Simulation


async def course(scenario: Scenario, seed: int, root: Path) -> Course:
    simulation = Simulation(scenario, seed, root)
    try:
        return await simulation.run()
    finally:
        await simulation.close()


async def test_a_constant_scorer_moves_nothing(tmp_path: Path) -> None:
    found = await course(Scenario("constant", (python("constant"),), prompts=8, client_limit=None), 1, tmp_path)
    assert [row.outcome for row in found.rows] == ["failed"] * 20
    assert all("no_spread" in row.reason for row in found.rows)
    assert found.serving.same(found.base)


async def test_a_good_scorer_teaches_and_the_gate_lets_it(tmp_path: Path) -> None:
    found = await course(Scenario("good", (VERIFIER,), rounds=2), 1, tmp_path)
    assert "accepted" in {row.outcome for row in found.rows}
    assert found.serving.truth > found.base.truth + 0.1
    assert not found.serving.same(found.base)


async def test_the_same_seed_gives_the_same_course(tmp_path: Path) -> None:
    scenario = Scenario("noise", (python("noise"),), (VERIFIER,), rounds=1, prompts=16)
    one, again = [await course(scenario, 5, tmp_path / name) for name in ("one", "again")]
    other = await course(scenario, 6, tmp_path / "other")
    assert [asdict(row) for row in one.rows] == [asdict(row) for row in again.rows]
    assert one.serving.same(again.serving)
    assert one.rows[0].meters != other.rows[0].meters
