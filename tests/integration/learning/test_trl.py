"""TRL's GRPOTrainer on the same model and the same completions: the same loss, advantages and gradient.

In float64 up to what the model itself computes in float32. TRL pads and computes the prompt with every completion.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from tokenizers import Tokenizer, models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.advantage import Selection, select
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.objectives.registry import build_objective
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.parallel import ALONE
from tao_daemon.learning.peft_policy import Policy, load_policy
from tao_daemon.learning.reference import ReferenceGroup, reference

PROMPTS = ((5, 9, 11, 33, 20), (8, 2, 40))
ANSWERS = (((4, 8, 6), (60,), (7, 30, 2, 9, 19, 5), (11, 12)), ((21, 22, 23, 24), (33, 34), (50,), (41, 42, 43)))
REWARDS = ((0.2, 0.9, 0.1, 0.6), (1.0, 0.0, 0.0, 0.5))
LONGEST = 6


def exact(spec: TrainingSpec) -> Policy:
    policy = load_policy(spec)
    policy = Policy(policy._model.double(), policy.device)
    move(policy, 0.2)
    return policy


def move(policy: Policy, size: float) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(torch.randn_like(parameter) * size)


def batch_of(policy: Policy, off: float) -> list[ScoredGroup]:
    """Every second token of the sampler's is off by so many nats."""
    groups = []
    for number, (prompt, answers, rewards) in enumerate(zip(PROMPTS, ANSWERS, REWARDS, strict=True)):
        (pack,) = pack_group(prompt, answers, 1000)
        with torch.no_grad():
            values = [v + off * (place % 2) for place, v in enumerate(policy.logprobs(pack).tolist())]
        completions = []
        for index, answer in enumerate(answers):
            completions.append(Completion(index, PLAIN, "", answer, tuple(values[: len(answer)]), "stop"))
            del values[: len(answer)]
        groups.append(ScoredGroup(CompletionGroup(f"p{number}", prompt, tuple(completions)), rewards, ()))
    return groups


def twin(policy: Policy, spec: TrainingSpec) -> PeftModel:
    """The same weights in an ordinary peft model."""
    base = LlamaForCausalLM.from_pretrained(spec.base_model, dtype=torch.float32, attn_implementation="sdpa")
    model = get_peft_model(base, policy._model.peft_config["default"]).double()
    with torch.no_grad():
        for own, other in zip((p for p in model.parameters() if p.requires_grad), policy.parameters, strict=True):
            own.copy_(other)
    return model.eval()


def trl_trainer(model: PeftModel, folder: Path, loss_type: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    words = Tokenizer(models.WordLevel({str(token): token for token in range(64)}, unk_token="0"))
    settings = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        num_generations=4,
        max_completion_length=LONGEST,
        loss_type=loss_type,
        epsilon=0.2,
        epsilon_high=0.28,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": "5 9"}] * 8),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="0"),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.use_vllm = True  # only so that the importance weights given below are applied
    return trainer


def padded(rows: Sequence[Sequence[float]], filler: float = 0.0) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], dtype=torch.float64)


def trl_inputs(selection: Selection, groups: list[ReferenceGroup]) -> dict[str, torch.Tensor]:
    samples = [(group.prompt_token_ids, sample) for group in selection.groups for sample in group.samples]
    lengths = [len(sample.token_ids) for _, sample in samples]
    width = max(len(prompt) for prompt, _ in samples)
    prompts = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt, _ in samples])
    flat = {
        name: torch.cat([getattr(pack.fixed, name) for group in groups for pack in group.packs])
        for name in ("reference_T", "weights_T")
    }
    rows = {name: [part.tolist() for part in values.split_with_sizes(lengths)] for name, values in flat.items()}
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in samples]),
        "completion_ids": padded([sample.token_ids for _, sample in samples]).long(),
        "completion_mask": padded([[1] * length for length in lengths]).long(),
        "advantages": torch.tensor([sample.advantage for _, sample in samples], dtype=torch.float64),
        "old_per_token_logps": padded(rows["reference_T"]),
        "importance_sampling_ratio": padded(rows["weights_T"]),
        "num_items_in_batch": torch.tensor(sum(lengths)),
    }


def gradient_of(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


@pytest.mark.parametrize(("algorithm", "loss_type"), [("grpo", "dapo"), ("clipped_policy_gradient", "dr_grpo")])
@pytest.mark.parametrize("off", [0.0, 0.1], ids=["sampler = trainer", "corrected"])
def test_loss_and_gradient_are_trls(
    spec: TrainingSpec, tmp_path: Path, algorithm: str, loss_type: str, off: float
) -> None:
    spec = replace(spec, algorithm=algorithm, gradient_clip=1e9)
    policy = exact(spec)
    batch = batch_of(policy, off)
    selection = select(batch, build_objective(spec, batch), min_spread=0.05, max_sequence_tokens=64)
    groups = reference(policy, selection, spec)
    assert selection.sizes.longest == LONGEST
    move(policy, 0.05)  # some tokens are clipped
    step = Learner(policy, selection.objective, spec, ALONE).gradient(groups)
    gradient = gradient_of(policy.parameters)
    assert step.clipped > 0

    trainer = trl_trainer(twin(policy, spec), tmp_path, loss_type)
    loss = trainer._compute_loss(trainer.model, trl_inputs(selection, groups))
    loss.backward()
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    expected = gradient_of(p for p in trainer.model.parameters() if p.requires_grad)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-6


def test_advantages_of_grpo_are_trls(spec: TrainingSpec) -> None:
    from trl.trainer.utils import nanstd

    objective = build_objective(replace(spec, algorithm="grpo"), [])
    for rewards in REWARDS:
        given = torch.tensor([rewards], dtype=torch.float64)
        expected = (given - given.mean()) / (nanstd(given, dim=1) + 1e-4)
        assert objective.advantages(rewards, [True] * 4) == pytest.approx(expected[0].tolist(), rel=1e-7)
