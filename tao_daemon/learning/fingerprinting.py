"""The proof of an adapter: what it and the base say on a few short sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning import probes
from tao_daemon.learning.advantage import LearningGroup
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.peft_policy import Policy


def fingerprint_of(policy: Policy, groups: Sequence[LearningGroup]) -> Fingerprint:
    """What the trained adapter and the base say on the most telling short sequences, each computed alone."""
    measured = []
    with torch.no_grad():
        for candidate in probes.candidates(groups):
            (pack,) = pack_group(candidate.prompt, [candidate.completion], max_tokens=1)
            adapter = tuple(policy.logprobs(pack).tolist())
            with policy.base_only():
                base = tuple(policy.logprobs(pack).tolist())
            tokens = candidate.prompt + candidate.completion
            measured.append(FingerprintProbe(tokens, len(candidate.prompt), adapter, base))
    return Fingerprint(probes.most_telling(measured))


def checked_change(fingerprint: Fingerprint) -> float:
    """The largest change of any probe; the last step's outcome is first seen here."""
    change = max(probes.change(probe) for probe in fingerprint.probes)
    if not math.isfinite(change):
        raise TrainingError(
            "the trained adapter gives log-probabilities that are not finite; lower training.learning_rate"
        )
    if change == 0:
        raise TrainingError(
            "the trained adapter changes nothing on its own training data; raise training.learning_rate"
        )
    return change
