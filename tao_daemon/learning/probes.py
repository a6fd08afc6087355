"""Which sequences prove that a server serves the adapter: those on which it differs most from the base model.

Pure. Candidates are short, so that proving stays cheap at every swap, and come from many prompts.

learning groups → candidates → (the trainer computes both log-probabilities) → the most telling probes
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tao_daemon.domain.adapter import FingerprintProbe
from tao_daemon.learning.advantage import LearningGroup

MAX_CANDIDATES = 32
MAX_PROBES = 8
MAX_COMPLETION_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    prompt: tuple[int, ...]
    completion: tuple[int, ...]


def candidates(groups: Sequence[LearningGroup]) -> list[Candidate]:
    """At most 32 of the groups with the shortest prompts: first the sample with the largest |A| of each, then the
    second ones, and so on, so that a few groups with short answers still give enough tokens to tell."""
    short = sorted(groups, key=lambda group: len(group.prompt_token_ids))[:MAX_CANDIDATES]
    layers = itertools.zip_longest(*(_by_advantage(group) for group in short))
    found = (candidate for layer in layers for candidate in layer if candidate is not None)
    return list(itertools.islice(found, MAX_CANDIDATES))


def _by_advantage(group: LearningGroup) -> list[Candidate]:
    ordered = sorted(group.samples, key=lambda sample: abs(sample.advantage), reverse=True)
    cut = dict.fromkeys(sample.token_ids[:MAX_COMPLETION_TOKENS] for sample in ordered)
    return [Candidate(group.prompt_token_ids, completion) for completion in cut]


def change(probe: FingerprintProbe) -> float:
    """Mean absolute log-probability difference between adapter and base, nats per completion token."""
    pairs = zip(probe.adapter_logprobs, probe.base_logprobs, strict=True)
    return statistics.fmean(abs(adapter - base) for adapter, base in pairs)


def most_telling(probes: Sequence[FingerprintProbe]) -> tuple[FingerprintProbe, ...]:
    """At most 8 probes, the largest change first; what is not a number comes before all, as no proof may hide it."""

    def telling(probe: FingerprintProbe) -> float:
        found = change(probe)
        return math.inf if math.isnan(found) else found

    return tuple(sorted(probes, key=telling, reverse=True)[:MAX_PROBES])
