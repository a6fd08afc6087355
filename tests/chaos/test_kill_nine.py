"""`kill -9` of the daemon at every place of a round and a swap: it resumes, or is cleanly marked failed.

After the restart nothing is lost, doubled or left behind, and only a verified adapter serves.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.past import a_round
from bench.random_adapter import publish_random_adapters
from tao_daemon.app.paths import journal_path
from tao_daemon.app.settings import policy_of
from tao_daemon.config import load_config
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.registry.journal import Journal

pytestmark = [pytest.mark.vllm, pytest.mark.chaos, pytest.mark.timeout(600)]

PROMPTS = 160
PHASES = ("claiming", "sampling", "scoring", "training", "evaluating")
PLACES = [
    *(f"{phase}.{edge}" for phase in PHASES for edge in ("begin", "end")),
    "journaled.CandidateJudged",
]
DELIVERY = [
    "verifying.begin",
    "verifying.end",
    "journaled.AdapterVerified",
    "journaled.ShadowScored",
    "journaled.TrafficMeasured",
]


def trainers(site: Any) -> list[int]:
    """Trainer processes of this site, found by their spec directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "tao_daemon.learning.worker" in command and str(site.root) in command:
            found.append(int(path.parent.name))
    return found


def served_adapters(site: Any) -> set[str]:
    with urllib.request.urlopen(f"{site.config['serving']['replicas'][0]}/v1/models", timeout=10) as response:
        return {model["id"] for model in json.load(response)["data"]}


def check_after_restart(site: Any) -> None:
    """The round ends one way or another, and the world is whole."""
    status = site.wait_status(
        lambda s: s["last_round"] and s["round"] is None and (not s["rollout"] or s["rollout"]["phase"] == "settled"),
        300,
        "round 1 to end after the restart",
    )
    assert status["last_round"]["id"] == 1
    assert status["last_round"]["outcome"] in ("accepted", "failed", "rejected", "inconclusive")
    buffer = status["buffer"]
    assert buffer["train"] + buffer["held_out"] + buffer["excluded"] == PROMPTS, "nothing lost, nothing doubled"
    adapter = status["incumbent"]["adapter"]
    if adapter:
        directory = Path(site.config["daemon"]["data_dir"], "adapters", adapter)
        assert (directory / "manifest.json").exists(), "what serves is a whole, published adapter"
        assert adapter in served_adapters(site)
        assert status["last_round"]["outcome"] == "accepted"
    leftovers = list(Path(site.config["daemon"]["data_dir"]).rglob(".tmp-*"))
    assert leftovers == [], "no half artefact stays"
    site.wait(lambda: not trainers(site), 20, "every trainer to be gone")
    assert site.run("audit", "verify").returncode == 0


@pytest.fixture
def site(make_tiny_site: Callable[..., Any], produce: Any, random_prompts: Any) -> Any:
    """One round is due as soon as it starts, and only one."""
    made = make_tiny_site(
        round={"min_interval_seconds": 3600.0, "retry_seconds": 3600.0},
        # No gateway here: shadow, then a short baking.
        rollout={"canary_fractions": [], "bake_conversations": 0},
    )
    produce(made.config["kafka"]["topic"], random_prompts(PROMPTS, seed=3))
    made.write_config()
    return made


@pytest.fixture
def staged(
    make_tiny_site: Callable[..., Any], produce: Any, random_prompts: Any, tiny_vllm: Any, tmp_path: Path
) -> Any:
    """The journal says that round 1 was accepted: its rollout begins when the daemon starts."""
    made = make_tiny_site(
        round={"min_new_prompts": 0},
        # No gateway here: shadow, then a short baking. Every answer is as good as every other.
        rollout={"canary_fractions": [], "bake_conversations": 0, "margin": 0.5},
        scorers=[{"name": "anything", "type": "python", "callable": "tiny_scorers:says_anything"}],
    )
    produce(made.config["kafka"]["topic"], random_prompts(PROMPTS, seed=3))
    data = Path(made.config["daemon"]["data_dir"])
    data.mkdir(parents=True)
    store = DirectoryAdapterStore(data / "adapters", max_rank=16)
    (adapter,) = publish_random_adapters(tiny_vllm.model, tmp_path, store, 1)
    config = load_config(made.write_config())
    journal, state = Journal(journal_path(config)), State()
    for event in a_round(1, adapter):
        state = apply_event(journal, state, event, policy_of(config), 1.0).state
    journal.close()
    return made


@pytest.mark.parametrize("place", DELIVERY)
def test_killed_in_the_delivery(staged: Any, place: str) -> None:
    staged.daemon.environment["TAO_KILL_AT"] = place
    staged.daemon.start()
    assert staged.daemon.popen.wait(120) == 128 + signal.SIGKILL, staged.daemon.tail()
    del staged.daemon.environment["TAO_KILL_AT"]
    staged.daemon.start()
    check_after_restart(staged)
    assert staged.status()["incumbent"]["adapter"], "the rollout went on to the end"


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_named_place(site: Any, place: str) -> None:
    site.daemon.environment["TAO_KILL_AT"] = place
    site.daemon.start()
    assert site.daemon.popen.wait(300) == 128 + signal.SIGKILL, site.daemon.tail()
    assert trainers(site) == [], "a killed daemon leaves no trainer"
    del site.daemon.environment["TAO_KILL_AT"]
    site.daemon.start()
    check_after_restart(site)


@pytest.mark.parametrize("phase", ["sampling", "training", "evaluating"])
def test_killed_in_the_middle_of_a_phase(site: Any, phase: str) -> None:
    site.daemon.start()
    site.wait_status(lambda s: s["round"] and s["round"]["phase"] == phase, 200, f"the {phase} phase")
    if phase == "training":
        site.wait(lambda: trainers(site), 60, "the trainer to start")
    os.kill(site.daemon.pid, signal.SIGKILL)
    site.daemon.popen.wait(30)
    # The trainer ends by itself when its parent's end of the pipe closes.
    site.wait(lambda: not trainers(site), 10, "the trainer to end with the daemon")
    site.daemon.start()
    check_after_restart(site)
