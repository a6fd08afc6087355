"""However a group is laid out for computing, every objective gives the same loss and the same gradient.

In float64 on a random Llama of two layers, to a relative 1e-9, against the plain way: one padded row per completion,
the prompt computed every time, peft's LoRA, transformers' attention and mask, an ordinary log-softmax over all logits.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRMSNorm

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.advantage import LearningGroup, Selection, select
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.course import Step
from tao_daemon.learning.gradients import backward
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.objectives.objective import Fixed, Objective
from tao_daemon.learning.objectives.registry import OBJECTIVES, build_objective
from tao_daemon.learning.packing import Pack, pack_group
from tao_daemon.learning.parallel import ALONE
from tao_daemon.learning.peft_policy import Policy, load_policy
from tao_daemon.learning.reference import ReferenceGroup, merged, reference

TOLERANCE = 1e-9
LAYOUTS = {"one by one": 12, "groups split over packs": 20, "some side by side": 60, "all in one batch": 10_000}
PROMPTS = ((5, 9, 1, 33, 20, 8, 2), (3, 3), (40, 41, 42, 43, 44), (17,))


def exact(spec: TrainingSpec) -> Policy:
    """A float64 policy whose adapter is far from zero: LoRA B starts at 0, which would hide every gradient of A."""
    policy = Policy(doubled(load_policy(spec)._model), torch.device("cpu"))
    move(policy, 5, 0.2)
    return policy


def doubled(model: PeftModel) -> PeftModel:
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = partial(_norm, module)  # its own goes through float32
    return model.double()


def _norm(module: LlamaRMSNorm, values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(values, module.weight.shape, module.weight, module.variance_epsilon)


def twin(policy: Policy, spec: TrainingSpec) -> PeftModel:
    """The same weights in an ordinary peft model: its own LoRA layers, transformers' own attention and masks."""
    base = LlamaForCausalLM.from_pretrained(spec.base_model, dtype=torch.float32, attn_implementation="sdpa")
    model = get_peft_model(base, policy._model.peft_config["default"])
    model = doubled(model) if policy.dtype == torch.float64 else model
    with torch.no_grad():
        for own, other in zip((p for p in model.parameters() if p.requires_grad), policy.parameters, strict=True):
            own.copy_(other)
    return model.eval()


def move(policy: Policy, seed: int, size: float) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(torch.randn_like(parameter) * size)


def batch_of(policy: Policy) -> list[ScoredGroup]:
    """Groups of unlike prompts and lengths; the sampler differs a little from π₀, the last of each group is a hint."""
    rng = random.Random(4)
    groups = []
    for number, prompt in enumerate(PROMPTS):
        answers = [tuple(rng.randrange(64) for _ in range(length)) for length in (4, 1, 6, 3, 2)]
        (pack,) = pack_group(prompt, answers, 10_000)
        with torch.no_grad():
            own = [value + rng.gauss(0, 0.02) for value in policy.logprobs(pack).tolist()]
        completions = []
        for index, answer in enumerate(answers):
            strategy = "hint" if index == 4 else PLAIN
            completions.append(Completion(index, strategy, "", answer, tuple(own[: len(answer)]), "stop"))
            del own[: len(answer)]
        rewards = (0.2, 0.9, 0.1, 0.6, 0.9)
        groups.append(ScoredGroup(CompletionGroup(f"p{number}", prompt, tuple(completions)), rewards, ()))
    return groups


def chosen(spec: TrainingSpec, batch: list[ScoredGroup]) -> Selection:
    return select(batch, build_objective(spec, batch), min_spread=0.05, max_sequence_tokens=64)


def gradient(policy: Policy, groups: list[ReferenceGroup], objective: Objective, spec: TrainingSpec) -> Step:
    return Learner(policy, objective, spec, ALONE).gradient(groups)


def gradient_of(model: Policy | PeftModel) -> torch.Tensor:
    parameters = model.parameters if isinstance(model, Policy) else list(model.parameters())
    found = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    for parameter in parameters:
        parameter.grad = None
    return found


def padded_logprobs(model: PeftModel, group: LearningGroup) -> torch.Tensor:
    """logprobs_T of a group's samples in order: right-padded rows through the unpacked model."""
    prompt = list(group.prompt_token_ids)
    rows = [prompt + list(sample.token_ids) for sample in group.samples]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    logprobs = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    picked = logprobs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    start = len(prompt) - 1
    return torch.cat([picked[i, start : start + len(s.token_ids)] for i, s in enumerate(group.samples)])


def plainly(model: PeftModel, selection: Selection, groups: list[ReferenceGroup]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of a step in the plain way, from the tensors that are fixed."""
    losses = []
    for group, prepared in zip(selection.groups, groups, strict=True):
        fixed = merged([pack.fixed for pack in prepared.packs])
        losses.append(selection.objective.loss(padded_logprobs(model, group), fixed) / len(groups))
    total = torch.stack(losses).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return float(total.detach()), gradient_of(model)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("algorithm", OBJECTIVES)
def test_packing_prefix_sharing_padding_batching_and_checkpointing_change_nothing(
    spec: TrainingSpec, algorithm: str, checkpointed: bool
) -> None:
    spec = replace(spec, algorithm=algorithm, gradient_clip=1e9, checkpoint_activations=checkpointed)
    policy = exact(spec)
    selection = chosen(spec, batch_of(policy))
    start = {name: reference(policy, selection, replace(spec, micro_batch_tokens=n)) for name, n in LAYOUTS.items()}
    move(policy, 7, 0.03)
    loss, expected = plainly(twin(policy, spec), selection, start["one by one"])
    assert expected.norm() > 1e-3
    assert len({len(group.packs) for groups in start.values() for group in groups}) > 1 or algorithm == "raft"
    for name, tokens in LAYOUTS.items():
        step = gradient(policy, start[name], selection.objective, replace(spec, micro_batch_tokens=tokens))
        assert step.loss == pytest.approx(loss, rel=TOLERANCE), name
        assert apart(gradient_of(policy), expected) < TOLERANCE, name


@pytest.mark.parametrize("algorithm", OBJECTIVES)
def test_float32_stays_within_its_own_rounding(spec: TrainingSpec, algorithm: str) -> None:
    spec = replace(spec, algorithm=algorithm, gradient_clip=1e9)
    policy = load_policy(spec)
    move(policy, 5, 0.2)
    selection = chosen(spec, batch_of(policy))
    groups = reference(policy, selection, spec)
    move(policy, 7, 0.03)
    loss, expected = plainly(twin(policy, spec), selection, groups)
    for tokens in LAYOUTS.values():
        step = gradient(policy, groups, selection.objective, replace(spec, micro_batch_tokens=tokens))
        assert step.loss == pytest.approx(loss, rel=1e-4)
        assert apart(gradient_of(policy), expected) < 1e-4


@pytest.mark.parametrize("algorithm", OBJECTIVES)
def test_gradient_through_the_model_agrees_with_finite_differences(spec: TrainingSpec, algorithm: str) -> None:
    spec = replace(spec, algorithm=algorithm, gradient_clip=1e9)
    policy = exact(spec)
    selection = chosen(spec, batch_of(policy))
    groups = reference(policy, selection, spec)
    move(policy, 7, 0.01)

    def loss() -> float:
        found = backward(policy, groups, selection.objective, of=len(groups), max_tokens=10_000).loss
        gradient_of(policy)
        return found

    gradient(policy, groups, selection.objective, spec)
    slopes = [parameter.grad for parameter in policy.parameters]
    gradient_of(policy)
    size = 1e-6
    for seed in range(3):
        torch.manual_seed(seed)
        direction = [torch.randn_like(parameter) for parameter in policy.parameters]
        expected = sum(float((s * d).sum()) for s, d in zip(slopes, direction, strict=True) if s is not None)
        ends = []
        for sign in (1, -2):  # there, and back past the start
            for parameter, along in zip(policy.parameters, direction, strict=True):
                parameter.data.add_(along, alpha=sign * size)
            ends.append(loss())
        for parameter, along in zip(policy.parameters, direction, strict=True):
            parameter.data.add_(along, alpha=size)
        assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(expected, rel=1e-6)


def test_shares_of_several_processes_add_up_to_the_step(spec: TrainingSpec) -> None:
    spec = replace(spec, gradient_clip=1e9)
    policy = exact(spec)
    selection = chosen(spec, batch_of(policy))
    groups = reference(policy, selection, spec)
    whole = gradient(policy, groups, selection.objective, spec)
    expected = gradient_of(policy)
    shares = [
        backward(policy, part, selection.objective, of=len(groups), max_tokens=30) for part in (groups[:1], groups[1:])
    ]
    assert apart(gradient_of(policy), expected) < TOLERANCE
    step = (shares[0] + shares[1]).step(whole.gradient_norm)
    assert step.loss == pytest.approx(whole.loss, rel=TOLERANCE)
    assert (step.tokens, step.clipped) == (whole.tokens, whole.clipped)


@pytest.fixture(params=["a new adapter", "an adapter to go on with"])
def starting(request: pytest.FixtureRequest, spec: TrainingSpec, tmp_path: Path) -> TrainingSpec:
    if request.param == "a new adapter":
        return spec
    policy = load_policy(spec)
    move(policy, 9, 0.1)
    policy.save(tmp_path)
    return replace(spec, start_adapter=str(tmp_path))


@pytest.mark.parametrize("tokens", LAYOUTS.values(), ids=LAYOUTS)
def test_the_reference_is_the_starting_policy_itself(starting: TrainingSpec, tokens: int) -> None:
    """Exactly, when the micro-batches are the same; to 1e-5 nats in float32, whatever lies beside a pack."""
    limited = replace(starting, micro_batch_tokens=tokens)
    policy = load_policy(starting)
    selection = chosen(starting, batch_of(policy))
    groups = reference(policy, selection, limited)
    step = gradient(policy, groups, selection.objective, limited)
    assert step.clipped == 0.0
    again = load_policy(starting)
    with torch.no_grad():
        for group in groups:
            for pack in group.packs:
                alone = again.logprobs(pack.pack)
                assert (alone - pack.fixed.reference_T).abs().max() < 1e-5
        start_is_base = starting.start_adapter is None
        with again.base_only():
            base = again.logprobs(groups[0].packs[0].pack)
    assert torch.allclose(base, groups[0].packs[0].fixed.reference_T, atol=1e-5) == start_is_base


def test_batched_packs_keep_their_order(policy: Policy) -> None:
    packs: list[Pack] = [pack_group(prompt, [(1, 2, 3), (9,)], 100)[0] for prompt in PROMPTS]
    with torch.no_grad():
        together = policy.logprobs(*packs)
        alone = torch.cat([policy.logprobs(pack) for pack in packs])
    assert torch.allclose(together, alone, atol=1e-5)


def test_merging_numbers_sequences_through(spec: TrainingSpec, policy: Policy) -> None:
    groups = reference(policy, chosen(spec, batch_of(policy)), replace(spec, micro_batch_tokens=12))
    parts: list[Fixed] = [pack.fixed for group in groups for pack in group.packs]
    whole = merged(parts)
    assert whole.owners_T.unique().tolist() == list(range(sum(len(part.advantages_S) for part in parts)))
    assert torch.equal(
        whole.advantages_S[whole.owners_T], torch.cat([part.advantages_S[part.owners_T] for part in parts])
    )
