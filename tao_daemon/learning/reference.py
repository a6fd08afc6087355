"""π₀ on every pack of a batch, once, and what follows from it: weights and masks.

packs → log-probabilities of π₀ → fixed tensors of every pack → counted, checked
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.advantage import LearningSample, Selection, Weighting
from tao_daemon.learning.batching import micro_batches
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.objectives.objective import Fixed, Objective
from tao_daemon.learning.packing import Pack, pack_group
from tao_daemon.learning.parallel import ALONE, Ranks
from tao_daemon.learning.peft_policy import Policy


@dataclass(frozen=True, slots=True)
class ReferencePack:
    """A pack with all that stays fixed while πθ moves."""

    pack: Pack
    fixed: Fixed
    """Sequences are numbered by their order in the pack."""


@dataclass(frozen=True, slots=True)
class ReferenceGroup:
    """A group's packs: together they hold every sample of the group once."""

    packs: tuple[ReferencePack, ...]


def reference(policy: Policy, selection: Selection, spec: TrainingSpec, ranks: Ranks = ALONE) -> list[ReferenceGroup]:
    """π₀ on every pack, with the weights that follow from it; in the order of the selection's groups."""
    packed = [
        (group, pack_group(group.prompt_token_ids, [s.token_ids for s in group.samples], spec.micro_batch_tokens))
        for group in selection.groups
    ]
    found = iter(_logprobs(policy, [pack for _, packs in packed for pack in packs], spec.micro_batch_tokens, ranks))
    sizes = selection.sizes
    groups = []
    for group, packs in packed:
        scale = selection.objective.scale(len(group.samples), sizes)
        members = [[group.samples[index] for index in dict.fromkeys(pack.owners)] for pack in packs]
        fixed = [_reference(p, m, next(found), scale, selection.objective) for p, m in zip(packs, members, strict=True)]
        groups.append(ReferenceGroup(tuple(fixed)))
    return groups


def merged(packs: Sequence[Fixed]) -> Fixed:
    """One micro-batch out of several packs: sequences are numbered through."""
    starts, count = [], 0
    for fixed in packs:
        starts.append(count)
        count += len(fixed.advantages_S)
    columns = {field.name: torch.cat([getattr(fixed, field.name) for fixed in packs]) for field in fields(Fixed)}
    owners_T = torch.cat([fixed.owners_T + start for fixed, start in zip(packs, starts, strict=True)])
    return Fixed(**{**columns, "owners_T": owners_T})


def _logprobs(policy: Policy, packs: Sequence[Pack], max_tokens: int, ranks: Ranks) -> list[Tensor]:
    """Every process computes its share; adding the zeros of the others changes no number."""
    sizes = [len(pack.targets) for pack in packs]
    exact = torch.promote_types(policy.dtype, torch.float32)
    found = [torch.zeros(size, dtype=exact, device=policy.device) for size in sizes]
    with torch.no_grad():
        for batch in ranks.mine(micro_batches([pack.size for pack in packs], max_tokens)):
            logprobs_T = policy.logprobs(*(packs[i] for i in batch))
            for i, part_T in zip(batch, logprobs_T.split_with_sizes([sizes[i] for i in batch]), strict=True):
                found[i] = part_T
    return list(ranks.sum_tensor(torch.cat(found)).split_with_sizes(sizes)) if found else []


def _reference(
    pack: Pack, samples: Sequence[LearningSample], reference_T: Tensor, scale: float, objective: Objective
) -> ReferencePack:
    device, exact = reference_T.device, reference_T.dtype
    lengths = torch.tensor([len(sample.token_ids) for sample in samples], device=device)
    owners_T = torch.arange(len(samples), device=device).repeat_interleave(lengths)
    plain_T = torch.tensor([s.weighting is Weighting.IMPORTANCE for s in samples], device=device)[owners_T]
    sampled_T = reference_T.clone()  # where μ has no meaning, nothing is to be corrected
    known = [value for s in samples if s.weighting is Weighting.IMPORTANCE for value in s.behaviour_logprobs]
    sampled_T[plain_T] = torch.tensor(known, dtype=exact, device=device)
    fixed = Fixed(
        owners_T=owners_T,
        reference_T=reference_T,
        weights_T=objective.weights_T(reference_T, sampled_T, owners_T),
        plain_T=plain_T,
        advantages_S=torch.tensor([sample.advantage for sample in samples], dtype=exact, device=device),
        scales_S=torch.full((len(samples),), scale, dtype=exact, device=device),
    )
    return ReferencePack(pack, fixed)


def counted(groups: Sequence[ReferenceGroup]) -> dict[str, float]:
    """Metrics of the reference pass: plain tokens that train, and sequences that the mask took out."""
    packs = [pack for group in groups for pack in group.packs]
    plain_tokens = sum(int(pack.fixed.plain_T.sum()) for pack in packs)
    masked = sum(len(set(pack.fixed.owners_T[pack.fixed.weights_T == 0].tolist())) for pack in packs)
    return {"masked_sequences": float(masked), "plain_tokens": float(plain_tokens)}


def check_reference(groups: Sequence[ReferenceGroup], mismatch: float, max_mismatch: float) -> None:
    """Raises TrainingError when these groups cannot be learned from, given `KlMeter.mismatch`."""
    if not math.isfinite(mismatch):
        raise TrainingError("the starting policy gives log-probabilities that are not finite; check the base model")
    if mismatch > max_mismatch:
        raise TrainingError(
            f"server and trainer differ by {mismatch:.3f} nats per token, training.max_mismatch is "
            f"{max_mismatch}; check that vLLM serves the weights in training.base_model and runs with "
            "--logprobs-mode processed_logprobs --generation-config vllm"
        )
    if not any(_teaches(pack.fixed) for group in groups for pack in group.packs):
        masked = counted(groups)["masked_sequences"]
        raise TrainingError(
            f"nothing to learn: all {masked:.0f} plain sequences diverge from the starting policy "
            f"(mismatch {mismatch:.3f} nats per token); check that the same adapter sampled and starts training"
        )


def _teaches(fixed: Fixed) -> bool:
    return bool((fixed.weights_T * fixed.advantages_S[fixed.owners_T]).any())
