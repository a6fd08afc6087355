"""A site's past without any model server: rounds on disk, and a journal whose last rollout waits for a person."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path
from typing import Any

from bench.past import a_round, remember, settling
from tao_daemon.config import load_config
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.events import AdapterVerified, ShadowScored
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutPhase, ShadowPair
from tao_daemon.registry.round_archive import RoundArchive

FIRST, SECOND = "r000001-aaaaaaaaaaaa", "r000003-bbbbbbbbbbbb"


def write_past(site: Any) -> None:
    config = load_config(site.write_config())
    pairs = tuple(ShadowPair(f"p{number}", 0.5) for number in range(60))
    events = [
        *settling(1, FIRST),
        *a_round(2, "r000002-cccccccccccc", Decision.FAIL),
        *a_round(3, SECOND),
        AdapterVerified(SECOND, 1),
        ShadowScored(SECOND, RolloutPhase.SHADOW, pairs),
    ]
    remember(config, events, repeat(time.time()))
    archive = RoundArchive(Path(config.daemon.data_dir, "rounds"))
    for number, outcome in ((1, "accepted"), (2, "rejected"), (3, "accepted")):
        write_round(archive, number, outcome)


def write_round(archive: RoundArchive, number: int, outcome: str) -> None:
    groups = [
        CompletionGroup(f"{at:032x}", (1, 2), tuple(Completion(n, "plain", "a", (3,), (-0.1,), "stop") for n in (0, 1)))
        for at in range(4)
    ]
    for group in groups:
        archive.append_group(number, group)
    archive.finish_sampling(number)
    archive.write_scores(number, [ScoredGroup(group, (0.0, 1.0), ("form",)) for group in groups[:3]])
    rows = [
        {
            "prompt_id": f"{at:032x}",
            "incumbent_text": f"old answer {at}",
            "candidate_text": f"new answer {at} \x1b[31mred",
            "incumbent_score": 0.0,
            "candidate_score": 1.0 if at else 0.0,
            "incumbent_tokens": 3,
            "candidate_tokens": 2,
            "incumbent_truncated": False,
            "candidate_truncated": False,
        }
        for at in range(3)
    ]
    archive.write_evaluation(number, rows)
    numbers = {"difference": 0.6 + number / 10, "difference_low": 0.1, "difference_high": 0.9, "incumbent_score": 0.0}
    archive.update_report(
        number,
        {
            "started_at": 1_700_000_000.0 + number,
            "ended_at": 1_700_000_100.0 + number,
            "reason": "a past",
            "incumbent": None,
            "candidate": f"r{number:06d}-{'d' * 12}",
            "outcome": outcome,
            "outcome_reason": f"gain {number}",
            "phases": {
                "sampling": {"seconds": 12.0, "groups": 4, "completions": 8, "tokens": 8},
                "scoring": {"seconds": 1.0, "kept": 3, "dropped": 1, "mean_reward": 0.5},
            },
            "verdict": {"decision": "pass", "reasons": ["gain is sure"], "numbers": numbers},
        },
    )


def environment_of(site: Any) -> dict[str, str]:
    config = str(site.root / "config.toml")
    return {**os.environ, "TAO_CONFIG": config, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}


def run(site: Any, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of the CLI with more in its environment."""
    command = [sys.executable, "-m", "tao_daemon", *arguments]
    env = {**environment_of(site), **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
