"""The bad scorers, each with the gate that stands beside it. Pure.

A scenario that ends badly is here too: it shows that the others could, and which meters move.
"""

from __future__ import annotations

from bench.collapse.rows import Accept
from bench.collapse.simulation import Scenario
from tao_daemon.config.scorers import JudgeScorer, MathScorer, PythonScorer

VERIFIER = MathScorer(name="sum", type="math", expected=r"regex:What is (.*)\?")


def judge(url: str, decoy_fraction: float) -> JudgeScorer:
    return JudgeScorer(name="judge", type="judge", url=url, model="judge", decoy_fraction=decoy_fraction)


def python(name: str) -> PythonScorer:
    return PythonScorer(name=name, type="python", callable=f"bench.collapse.scorers:{name}")


def scenarios(judge_url: str) -> dict[str, Scenario]:
    watched, blind = judge(judge_url, 0.1), judge(judge_url, 0.0)
    found = (
        Scenario("good scorer", (VERIFIER,)),
        Scenario("fooled judge with decoys", (watched,)),
        Scenario("fooled judge with decoys, gate verifies", (watched,), (VERIFIER,)),
        Scenario("fooled judge, no decoys, judges itself", (blind,)),
        Scenario("fooled judge, no decoys, gate verifies", (blind,), (VERIFIER,)),
        Scenario("noise, gate verifies", (python("noise"),), (VERIFIER,)),
        Scenario("noise judges itself", (python("noise"),)),
        Scenario("noise, everything accepted", (python("noise"),), (VERIFIER,), Accept.ALL),
        Scenario("verifier wrong in 30 %", (python("flipped"),)),
        Scenario("constant", (python("constant"),), client_limit=None),
        Scenario("length judges itself", (python("length"),)),
        Scenario("length, everything accepted", (python("length"),), accept=Accept.ALL),
        Scenario("refusals judge themselves", (python("refusals"),)),
        Scenario("repetition judges itself", (python("repetition"),)),
    )
    return {scenario.name: scenario for scenario in found}
