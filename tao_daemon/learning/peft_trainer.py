"""One training: π₀ once, then clipped policy gradient over the round's groups, then the adapter with its proof.

Gradients come group by group, pack by pack; packs never change, so before the first step ρ = 1 exactly. The
optimizer is AdamW without weight decay at a constant rate. Training stops early on the KL budget and fails on
anything that is not a number.

loading → reference (π₀, mismatch with the sampler, masks) → training → saving (adapter, fingerprint) → result
"""

from __future__ import annotations

import logging
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning import probes
from tao_daemon.learning.advantage import LearningGroup, Selection, Weighting
from tao_daemon.learning.checkpoints import base_digest
from tao_daemon.learning.contract import (
    FINGERPRINT_FILE,
    PhaseEntered,
    TrainingSpec,
    WorkerEvent,
    WorkerResult,
)
from tao_daemon.learning.losses import Clip, clipped_fraction, clipped_policy_gradient, importance_weights, k3
from tao_daemon.learning.packing import Pack, pack_group
from tao_daemon.learning.peft_policy import Policy, load_policy

Say = Callable[[WorkerEvent], None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReferencePack:
    """A pack with all that stays fixed while πθ moves; tensors over its T completion tokens."""

    pack: Pack
    reference_T: Tensor
    advantages_T: Tensor
    weights_T: Tensor
    plain_T: Tensor
    """True on tokens of plain samples: only those measure KL and mismatch."""
    mismatch_T: Tensor
    """|π₀ − μ| in nats; 0 on strategy samples, whose μ conditions on another prompt."""


@dataclass(frozen=True, slots=True)
class ReferenceGroup:
    """A group's packs; `scale` is 1/(G·L_max), G its samples and L_max the longest completion of the round."""

    packs: tuple[ReferencePack, ...]
    scale: float


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, measured before the weights moved."""

    loss: float
    kl: float
    gradient_norm: float
    clipped: float
    tokens: int


@dataclass(frozen=True, slots=True)
class _Share:
    """What one pack adds to a step."""

    loss: float
    kl_sum: float
    clipped: float
    plain_tokens: int
    targets: int
    inputs: int


def train(spec: TrainingSpec, selection: Selection, artefact: Path, say: Say) -> WorkerResult:
    """Train and write the artefact into the existing directory. Raises TrainingError with the reason."""
    watch = _Watch(say)
    watch.enter("loading")
    digest = _checked_digest(spec)
    policy = load_policy(spec)
    _check_vocabulary(policy, selection.groups)
    logger.info("base loaded", extra={"device": str(policy.device), "dtype": str(policy.dtype)})
    watch.enter("reference")
    groups = reference(policy, selection, spec)
    measured = _check_reference(groups, spec)
    watch.enter("training")
    steps, over_budget = optimise(policy, groups, spec, say)
    watch.enter("saving")
    fingerprint = fingerprint_of(policy, selection.groups)
    change = _checked_change(fingerprint)
    policy.save(artefact)
    (artefact / FINGERPRINT_FILE).write_text(fingerprint.to_json(), encoding="utf-8")
    seconds = watch.seconds()
    inputs = sum(step.tokens for step in steps)
    metrics = {
        **measured,
        **_step_metrics(steps),
        **{f"{phase}_seconds": value for phase, value in seconds.items()},
        "groups": float(len(selection.groups)),
        "samples": float(sum(len(group.samples) for group in selection.groups)),
        "stopped_on_kl": float(over_budget),
        "change": change,
        "tokens": float(inputs),
        "tokens_per_second": inputs / seconds["training"],
    }
    return WorkerResult(digest, metrics)


class _Watch:
    """Announces phases and times them."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._entered: list[tuple[str, float]] = []

    def enter(self, phase: str) -> None:
        self._entered.append((phase, time.monotonic()))
        self._say(PhaseEntered(phase))

    def seconds(self) -> dict[str, float]:
        """Seconds per phase, the current one until now."""
        ends = [begin for _, begin in self._entered[1:]] + [time.monotonic()]
        return {phase: end - begin for (phase, begin), end in zip(self._entered, ends, strict=True)}


def _checked_digest(spec: TrainingSpec) -> str:
    digest = base_digest(Path(spec.base_model))
    if spec.start_base_digest not in (None, digest):
        raise TrainingError(
            f"the start adapter was trained on base {spec.start_base_digest}, training.base_model is {digest}; "
            "restore that base model, or undo to the base model first"
        )
    return digest


def _step_metrics(steps: Sequence[Step]) -> dict[str, float]:
    return {
        "steps": float(len(steps)),
        "loss": steps[-1].loss,
        "kl": steps[-1].kl,
        "kl_max": max(step.kl for step in steps),
        "gradient_norm": statistics.fmean(step.gradient_norm for step in steps),
        "clipped_fraction": statistics.fmean(step.clipped for step in steps),
    }


def reference(policy: Policy, selection: Selection, spec: TrainingSpec) -> list[ReferenceGroup]:
    """π₀ on every pack, with the weights and advantages that follow from it."""
    prepared = []
    with torch.no_grad():
        for group in selection.groups:
            completions = [sample.token_ids for sample in group.samples]
            packs = pack_group(group.prompt_token_ids, completions, spec.micro_batch_tokens)
            scale = 1.0 / (len(group.samples) * selection.longest_completion)
            prepared.append(ReferenceGroup(tuple(_reference(policy, group, pack) for pack in packs), scale))
    return prepared


def _reference(policy: Policy, group: LearningGroup, pack: Pack) -> ReferencePack:
    reference_T = policy.logprobs(pack)
    members = sorted(set(pack.owners))
    samples = [group.samples[index] for index in members]

    def tokens(values: Sequence[float | bool], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=reference_T.device)

    behaviour_T = tokens([value for s in samples for value in s.behaviour_logprobs], reference_T.dtype)
    advantages_T = tokens([s.advantage for s in samples for _ in s.token_ids], reference_T.dtype)
    plain_T = tokens([s.weighting is Weighting.IMPORTANCE for s in samples for _ in s.token_ids], torch.bool)
    owners_T = torch.tensor(pack.owners, device=reference_T.device)
    weights_T = importance_weights(reference_T, behaviour_T, owners_T)
    weights_T = torch.where(plain_T, weights_T, torch.ones_like(weights_T))
    mismatch_T = (reference_T - behaviour_T).abs() * plain_T
    return ReferencePack(pack, reference_T, advantages_T, weights_T, plain_T, mismatch_T)


def _check_reference(groups: Sequence[ReferenceGroup], spec: TrainingSpec) -> dict[str, float]:
    """Metrics of the reference pass. Raises TrainingError when the batch cannot be learned from."""
    packs = [pack for group in groups for pack in group.packs]
    plain_tokens = sum(int(pack.plain_T.sum()) for pack in packs)
    mismatch = sum(float(pack.mismatch_T.sum()) for pack in packs) / max(plain_tokens, 1)
    masked = sum(len({o for o, w in zip(p.pack.owners, p.weights_T.tolist(), strict=True) if w == 0}) for p in packs)
    if not math.isfinite(mismatch):
        raise TrainingError("the starting policy gives log-probabilities that are not finite; check the base model")
    if mismatch > spec.max_mismatch:
        raise TrainingError(
            f"server and trainer differ by {mismatch:.3f} nats per token, training.max_mismatch is "
            f"{spec.max_mismatch}; check that vLLM serves the weights in training.base_model and runs with "
            "--logprobs-mode processed_logprobs --generation-config vllm"
        )
    if not any(bool((pack.weights_T * pack.advantages_T).any()) for pack in packs):
        raise TrainingError(
            f"nothing to learn: all {masked} plain sequences diverge from the starting policy "
            f"(mismatch {mismatch:.3f} nats per token); check that the same adapter sampled and starts training"
        )
    return {"mismatch": mismatch, "masked_sequences": float(masked), "plain_tokens": float(plain_tokens)}


def optimise(policy: Policy, groups: Sequence[ReferenceGroup], spec: TrainingSpec, say: Say) -> tuple[list[Step], bool]:
    """All steps, or those up to the one that found the KL budget exceeded; that one moves no weight."""
    optimizer = torch.optim.AdamW(policy.parameters, lr=spec.learning_rate, weight_decay=0.0)
    total = spec.epochs * math.ceil(len(groups) / spec.groups_per_step)
    steps: list[Step] = []
    for epoch in range(spec.epochs):
        order = random.Random(f"{spec.seed}/{epoch}").sample(range(len(groups)), len(groups))
        for first in range(0, len(order), spec.groups_per_step):
            step = accumulate(policy, [groups[i] for i in order[first : first + spec.groups_per_step]], spec)
            if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
                raise TrainingError(
                    f"step {len(steps) + 1} of {total}: loss {step.loss}, gradient norm {step.gradient_norm}; "
                    "lower training.learning_rate"
                )
            steps.append(step)
            say(TrainingStepped(len(steps), total, step.loss, step.kl))
            if step.kl > spec.kl_budget:
                return steps, True
            optimizer.step()
            optimizer.zero_grad()
    return steps, False


def accumulate(policy: Policy, groups: Sequence[ReferenceGroup], spec: TrainingSpec) -> Step:
    """Gradients of one step, clipped, left in the parameters: the mean over the step's groups."""
    shares = [_backward(policy, pack, group.scale / len(groups), spec) for group in groups for pack in group.packs]
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters, spec.gradient_clip)
    plain = sum(share.plain_tokens for share in shares)
    targets = sum(share.targets for share in shares)
    return Step(
        loss=sum(share.loss for share in shares),
        kl=sum(share.kl_sum for share in shares) / max(plain, 1),
        gradient_norm=float(norm),
        clipped=sum(share.clipped * share.targets for share in shares) / targets,
        tokens=sum(share.inputs for share in shares),
    )


def _backward(policy: Policy, fixed: ReferencePack, scale: float, spec: TrainingSpec) -> _Share:
    logprobs_T = policy.logprobs(fixed.pack)
    moved = (logprobs_T, fixed.reference_T, fixed.advantages_T)
    clip = Clip(spec.clip_low, spec.clip_high)
    loss = clipped_policy_gradient(*moved, fixed.weights_T, clip) * scale
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return _Share(
            loss=float(loss),
            kl_sum=float(k3(logprobs_T - fixed.reference_T)[fixed.plain_T].sum()),
            clipped=clipped_fraction(*moved, clip),
            plain_tokens=int(fixed.plain_T.sum()),
            targets=len(fixed.pack.targets),
            inputs=len(fixed.pack.input_ids),
        )


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


def _checked_change(fingerprint: Fingerprint) -> float:
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


def _check_vocabulary(policy: Policy, groups: Sequence[LearningGroup]) -> None:
    highest = max(max(group.prompt_token_ids + sample.token_ids) for group in groups for sample in group.samples)
    if highest >= policy.vocabulary:
        raise TrainingError(
            f"the batch holds token {highest}, the base model's vocabulary has {policy.vocabulary}; "
            "set training.base_model to the folder whose weights vLLM serves"
        )
