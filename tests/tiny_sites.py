"""Sites whose rounds run on the tiny random model: plumbing in seconds, with real training."""

from __future__ import annotations

import os
import random
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def make_tiny_site(make_site: Callable[..., Any], tiny_vllm: Any) -> Callable[..., Any]:
    """A site on the tiny model; sections override."""

    def make(name: str = "site", **sections: Any) -> Any:
        base: dict[str, Any] = {
            "round": {"prompts": 12, "min_new_prompts": 30, "retry_seconds": 0.0},
            "sampling": {"completions": 8, "max_tokens": 24, "concurrent_prompts": 8, "live_slowdown": 0.0},
            "training": {
                "base_model": str(tiny_vllm.model),
                "learning_rate": 0.02,
                "continued_learning_rate": 0.02,
                # A random model moves only by large steps that no clip holds back.
                "epochs": 8,
                "clip_low": 0.9,
                "clip_high": 100.0,
                "groups_per_step": 4,
                "kl_budget": 1e6,
                "max_mismatch": 1.0,
            },
            "gate": {
                "prompts": 32,
                "min_prompts": 24,
                "min_differing_pairs": 5,
                "temperature": 0.0,
                "max_length_ratio": 100.0,
                "max_truncation_increase": 1.0,
                # What this scorer rewards is silence, and a random model that learns it is another model.
                "max_degenerate_increase": 1.0,
                "max_length_ratio_to_base": 100.0,
                "max_kl_to_base_per_token": 1e6,
                "divergence_prompts": 8,
            },
            "serving": {"replicas": [tiny_vllm.url], "base_model": "base", "drain_seconds": 1.0},
            "rollout": {
                "mode": "auto",
                # Scores are 0 or 1 here, so one pair is noisy: room enough for the shadow to become sure.
                "shadow_pairs": 8,
                "shadow_pairs_max": 200,
                "margin": 0.5,
                "canary_fractions": [0.5],
                "step_seconds": 1.0,
                "step_conversations": 2,
                "bake_seconds": 1.0,
                "bake_conversations": 2,
                "evaluate_seconds": 0.5,
            },
            "scorers": [{"name": "silence", "type": "python", "callable": "tiny_scorers:says_nothing"}],
        }
        for section, values in sections.items():
            base[section] = {**base[section], **values} if section in base and isinstance(values, dict) else values
        site = make_site(name, **base)
        paths = [str(Path(__file__).parent), *sys.path]
        site.daemon.environment = {"PYTHONPATH": os.pathsep.join(paths)}
        return site

    return make


@pytest.fixture
def random_prompts() -> Callable[[int, int], list[dict[str, Any]]]:
    """Requests of random words: no two are near-duplicates. They stop at the first space."""

    def make(count: int, seed: int) -> list[dict[str, Any]]:
        dice = random.Random(seed)

        def word() -> str:
            return "".join(dice.choice(string.ascii_lowercase) for _ in range(dice.randint(3, 9)))

        texts = [" ".join(word() for _ in range(8)) for _ in range(count)]
        return [{"messages": [{"role": "user", "content": text}], "max_tokens": 24, "stop": [" "]} for text in texts]

    return make
