"""One side of the trainer's benchmark, in a process of its own: the same optimizer steps, by us or by TRL.

`python -m bench.trainer_sides tao|trl MODEL PROMPT_TOKENS DTYPE` answers every line on stdin with one line of JSON:
`step` runs one optimizer step and then gives back the memory that is free, `rate` measures the machine's matrix
products, `memory` says what was used so far.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the side that waits must not spin on the other's cores

import torch
import transformers
from peft import LoraConfig, get_peft_model

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.advantage import select
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.objectives.registry import build_objective
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.parallel import ALONE
from tao_daemon.learning.peft_policy import Policy, load_policy
from tao_daemon.learning.reference import reference

GROUPS, COMPLETIONS, COMPLETION_TOKENS = 2, 8, 40
RANK, ALPHA, RATE, SEED = 16, 32, 5e-4, 1
MODULES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
BATCH_SIZES = (2, 4, 8)
"""Completions per forward pass that TRL may choose from."""
BATCH_TOKENS = 8192
"""At most so many tokens in one: 8 completions behind prompts of 1,024 took TRL beyond 24 GiB."""


class Side(Protocol):
    settings: str
    computed_tokens: int
    """Tokens through the trunk in one step."""

    def step(self) -> float:
        """One optimizer step; returns the norm of its gradient."""
        ...


def tokens(prompt_tokens: int) -> list[tuple[list[int], list[list[int]], list[float]]]:
    """Prompts, completions and rewards, the same on both sides. No padding anywhere, which is TRL's best case."""
    rng = random.Random(prompt_tokens)

    def draw(count: int) -> list[int]:
        return [rng.randrange(100, 40_000) for _ in range(count)]

    return [
        (draw(prompt_tokens), [draw(COMPLETION_TOKENS) for _ in range(COMPLETIONS)], [rng.random() for _ in range(8)])
        for _ in range(GROUPS)
    ]


class Tao:
    """Our trainer: packs, π₀ once, then the learner's steps, as the worker does it."""

    def __init__(self, model: Path, prompt_tokens: int, dtype: str) -> None:
        self._spec = _spec(model, dtype)
        self._policy = load_policy(self._spec)
        batch = [self._scored(*group) for group in tokens(prompt_tokens)]
        selection = select(batch, build_objective(self._spec, batch), min_spread=0.0, max_sequence_tokens=10_000)
        started = time.perf_counter()
        self._groups = reference(self._policy, selection, self._spec)
        taken = time.perf_counter() - started
        self._learner = Learner(self._policy, selection.objective, self._spec, ALONE)
        packs = [pack.pack for group in self._groups for pack in group.packs]
        self.computed_tokens = sum(len(pack.input_ids) for pack in packs)
        self.settings = f"micro_batch_tokens {self._spec.micro_batch_tokens}; once per round {taken:.1f} s for π₀"

    def step(self) -> float:
        step = self._learner.gradient(self._groups)
        self._learner.move()
        return step.gradient_norm

    def _scored(self, prompt: list[int], answers: list[list[int]], rewards: list[float]) -> ScoredGroup:
        with torch.no_grad():
            (pack,) = pack_group(prompt, answers, 100_000)
            own = self._policy.logprobs(pack).split(COMPLETION_TOKENS)  # type: ignore[no-untyped-call]
        completions = tuple(
            Completion(index, PLAIN, "", tuple(answer), tuple(own[index].tolist()), "stop")
            for index, answer in enumerate(answers)
        )
        return ScoredGroup(CompletionGroup("p", tuple(prompt), completions), tuple(rewards), ())


class Trl:
    """TRL's GRPOTrainer: its own loss on prepared inputs, AdamW fused, beta 0 (no reference model), no old
    log-probabilities (it needs none on the first pass over a batch), no gradient checkpointing, the batch size that
    was fastest. Liger's kernels need a GPU. A bfloat16 base runs under autocast with LoRA weights in float32, as ours.
    """

    def __init__(self, model: Path, prompt_tokens: int, dtype: str) -> None:
        self._groups = tokens(prompt_tokens)
        self._dtype = getattr(torch, dtype)
        self._trainer = _grpo_trainer(model, self._dtype)
        learned = [parameter for parameter in self._trainer.model.parameters() if parameter.requires_grad]
        self._learned = learned
        self._optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.0, fused=True)
        self.computed_tokens = GROUPS * COMPLETIONS * (prompt_tokens + COMPLETION_TOKENS)
        fitting = [size for size in BATCH_SIZES if size * (prompt_tokens + COMPLETION_TOKENS) <= BATCH_TOKENS]
        times = {size: self._timed(size) for size in fitting}
        self._size = min(times, key=lambda size: times[size])
        tried = ", ".join(f"{size}: {seconds:.1f} s" for size, seconds in times.items())
        self.settings = f"per_device_train_batch_size {self._size} (one group, {tried})"

    def step(self) -> float:
        self._backward(self._groups, self._size)
        norm = float(torch.nn.utils.clip_grad_norm_(self._learned, 1.0))
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def _timed(self, size: int) -> float:
        started = time.perf_counter()
        self._backward(self._groups[:1], size)
        self._optimizer.zero_grad()
        return time.perf_counter() - started

    def _backward(self, groups: Sequence[tuple[list[int], list[list[int]], list[float]]], size: int) -> None:
        rows = [(prompt, answer) for prompt, answers, _ in groups for answer in answers]
        advantages = torch.cat([_advantages(rewards) for _, _, rewards in groups])
        batches = len(rows) // size
        self._trainer.current_gradient_accumulation_steps = self._trainer.args.steps_per_generation = batches
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            prompts = torch.tensor([prompt for prompt, _ in rows[part]])
            answers = torch.tensor([answer for _, answer in rows[part]])
            inputs = {
                "prompt_ids": prompts,
                "prompt_mask": torch.ones_like(prompts),
                "completion_ids": answers,
                "completion_mask": torch.ones_like(answers),
                "advantages": advantages[part],
                "num_items_in_batch": torch.tensor(len(rows) * COMPLETION_TOKENS),
            }
            with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype is torch.bfloat16):
                loss = self._trainer._compute_loss(self._trainer.model, inputs)
            loss.backward()


def _advantages(rewards: Sequence[float]) -> torch.Tensor:
    given = torch.tensor(rewards)
    return (given - given.mean()) / (given.std() + 1e-4)


def _grpo_trainer(model: Path, dtype: torch.dtype) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    torch.manual_seed(SEED)  # the adapter then starts as ours does
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
    settings = GRPOConfig(
        output_dir=mkdtemp(),
        use_cpu=True,
        bf16=False,
        beta=0.0,
        gradient_checkpointing=False,
        report_to=[],
        per_device_train_batch_size=COMPLETIONS,
        num_generations=COMPLETIONS,
        max_completion_length=COMPLETION_TOKENS,
        epsilon_high=0.28,
    )
    trainer = GRPOTrainer(
        model=get_peft_model(base, config),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * COMPLETIONS),
        processing_class=transformers.AutoTokenizer.from_pretrained(model),
    )
    trainer.model.train()
    return trainer


def _spec(model: Path, dtype: str) -> TrainingSpec:
    values: dict[str, Any] = {field.name: 0 for field in fields(TrainingSpec)}
    values |= {"base_model": str(model), "start_adapter": None, "start_base_digest": None, "algorithm": "grpo"}
    values |= {"rank": RANK, "alpha": ALPHA, "learning_rate": RATE, "gradient_clip": 1.0, "dtype": dtype}
    values |= {
        "clip_low": 0.2,
        "clip_high": 0.28,
        "micro_batch_tokens": BATCH_TOKENS,
        "checkpoint_activations": False,
        "seed": SEED,
    }
    return TrainingSpec(**values)


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, the best of five."""
    size = 1024
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def matmul_parameters(policy: Policy) -> tuple[int, int]:
    """Frozen parameters in matrix products per trunk token, and per predicted token (the head)."""
    named = policy._model.named_parameters()
    trunk = sum(p.numel() for name, p in named if not p.requires_grad and p.dim() == 2 and ".layers." in name)
    return trunk, policy._head.weight.numel()


def _answers(side: Side) -> dict[str, Callable[[], dict[str, Any]]]:
    def step() -> dict[str, Any]:
        started, used = time.perf_counter(), time.process_time()
        norm = side.step()
        taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
        _give_back()
        return {**taken, "gradient_norm": norm}

    def memory() -> dict[str, Any]:
        return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def rate() -> dict[str, Any]:
        return {"float32": matmul_rate(torch.float32), "bfloat16": matmul_rate(torch.bfloat16)}

    def about() -> dict[str, Any]:
        said: dict[str, Any] = {"settings": side.settings, "computed_tokens": side.computed_tokens}
        if isinstance(side, Tao):
            trunk, head = matmul_parameters(side._policy)
            targets = GROUPS * COMPLETIONS * COMPLETION_TOKENS
            said["flops"] = 4.0 * (trunk * side.computed_tokens + head * targets)
        return said

    return {"step": step, "memory": memory, "rate": rate, "about": about}


def _give_back() -> None:
    """The machine need not hold what both sides take at their peaks."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def main(side_name: str, model: str, prompt_tokens: str, dtype: str) -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; the answers have stdout for themselves
    side: Side = {"tao": Tao, "trl": Trl}[side_name](Path(model), int(prompt_tokens), dtype)
    _give_back()
    answers = _answers(side)
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
