"""What a round works with: the backends by their ports, and plain values of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from tao_daemon.domain.ports import AdapterStore, Fleet, PromptStore, Sampler, Scorer, Trainer
from tao_daemon.evaluation.evaluator import Evaluator
from tao_daemon.registry.round_archive import RoundArchive


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """The plain values a round needs of the configuration."""

    prompts: int
    rehearsed_prompts: int
    """Earlier prompts that are asked again, beside `prompts`."""
    carried_rounds: int
    """Refused rounds whose scored groups train again."""
    tenant_share: float
    held_out_prompts: int
    gate_min_prompts: int
    divergence_prompts: int
    """Held-out prompts on which the candidate's divergence is measured."""
    shows_examples: bool
    """Some strategy shows earlier completions."""
    min_groups: int
    min_spread: float
    sampling_limit: int
    outage_seconds: float
    base_seed: int
    base_model: str
    config_digest: str


@dataclass(frozen=True, slots=True)
class Parts:
    """The backends a round works with."""

    store: PromptStore
    sampler: Sampler
    scorer: Scorer
    gate_scorer: Scorer
    trainer: Trainer
    evaluator: Evaluator
    adapters: AdapterStore
    fleet: Fleet
    archive: RoundArchive
