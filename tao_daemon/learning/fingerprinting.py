"""The proof of an adapter: what it and the base say on a few short sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning import probes
from tao_daemon.learning.advantage import LearningGroup
from tao_daemon.learning.batching import micro_batches
from tao_daemon.learning.packing import Pack, pack_group
from tao_daemon.learning.peft_policy import Policy


def fingerprint_of(policy: Policy, groups: Sequence[LearningGroup], max_tokens: int) -> Fingerprint:
    """What the trained adapter and the base say on the most telling short sequences, `max_tokens` per forward pass."""
    candidates = probes.candidates(groups)
    packs = [pack_group(each.prompt, [each.completion], max_tokens=1)[0] for each in candidates]
    measured: list[FingerprintProbe] = []
    for batch in micro_batches([pack.size for pack in packs], max_tokens):
        chosen = [packs[index] for index in batch]
        adapter = _logprobs(policy, chosen)
        with policy.base_only():
            base = _logprobs(policy, chosen)
        for index, trained, before in zip(batch, adapter, base, strict=True):
            prompt, completion = candidates[index].prompt, candidates[index].completion
            measured.append(FingerprintProbe(prompt + completion, len(prompt), trained, before))
    return Fingerprint(probes.most_telling(measured))


def _logprobs(policy: Policy, packs: Sequence[Pack]) -> list[tuple[float, ...]]:
    """Of each pack's targets, in one forward pass."""
    with torch.no_grad():
        logprobs_T = policy.logprobs(*packs)
    parts = torch.split(logprobs_T, [len(pack.targets) for pack in packs])
    return [tuple(part.tolist()) for part in parts]


def checked_change(fingerprint: Fingerprint) -> float:
    """The largest change of any probe. Raises TrainingError when one is not finite, or none changed."""
    changes = [probes.change(probe) for probe in fingerprint.probes]
    if not all(map(math.isfinite, changes)):
        raise TrainingError(
            "the trained adapter gives log-probabilities that are not finite; lower the learning rate of [training]"
        )
    if max(changes) == 0:
        raise TrainingError(
            "the trained adapter changes nothing on its own training data; raise the learning rate of [training]"
        )
    return max(changes)
