"""TRL's GRPOTrainer with the task's rewards: `python -m bench.learning.trl_grpo SPEC`, in a process of its own.

It generates with transformers, fresh completions for every step from the policy of that step, which a frozen batch does
not give: that is its advantage. As many completions per prompt, the same LoRA, the same rewards, cut off alike.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from bench.learning.baselines import ChildSpec, encoded, finish, model_and_tokenizer, save, spec_from_arguments
from bench.learning.plan import COMPLETIONS
from bench.learning.rewards import Rewards
from bench.learning.tasks import TASKS
from bench.learning.tasks.task import Split

_GROUPS_PER_STEP = 4
_EPSILON_HIGH = 0.28
"""DAPO's (arXiv 2503.14476)."""


class _Watch:
    """Seconds spent in a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Any) -> Any:
        def timed(*args: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*args, **named)
            finally:
                self.seconds += time.monotonic() - began

        timed.__name__ = getattr(function, "__name__", "function")
        return timed


def main(spec: ChildSpec) -> None:
    task = TASKS[spec.task]
    model, tokenizer = model_and_tokenizer(spec)
    items = task.items(Split.TRAIN, spec.task_seed, spec.count, first=spec.first)
    prompts = task.prompts(Split.TRAIN, spec.task_seed, items, first=spec.first)
    rewards, sampled, lengths = Rewards(task), [], []

    def reward(prompts_: Any, completions: Any, completion_ids: Any, index: Any, **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        cut = [tokenizer.eos_token_id not in ids for ids in completion_ids]
        found: list[float] = []
        for first in range(0, len(texts), COMPLETIONS):
            part = slice(first, first + COMPLETIONS)
            found += rewards.group(prompts[index[first]], texts[part], cut[part])
        sampled.append(sum(found) / len(found))
        lengths.extend(len(ids) for ids in completion_ids)
        return found

    scoring, generating = _Watch(), _Watch()
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[scoring(lambda prompts, completions, **named: reward(prompts, completions, **named))],
        args=_config(spec, task.max_tokens),
        train_dataset=Dataset.from_list(
            [{"prompt": list(item.request["messages"]), "index": place} for place, item in enumerate(items)]
        ),
        processing_class=tokenizer,
    )
    trainer._generate_single_turn = generating(trainer._generate_single_turn)
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    save(trainer.model, [encoded(tokenizer, item.request, item.gold) for item in items], Path(spec.out) / "artefact")
    finish(
        spec,
        {
            "completions": len(lengths),
            "tokens": sum(lengths),
            "rewards": sampled,
            "steps": trainer.state.global_step,
            "sampling_seconds": generating.seconds,
            "scoring_seconds": scoring.seconds,
            "training_seconds": seconds - generating.seconds - scoring.seconds,
        },
    )


def _config(spec: ChildSpec, max_tokens: int) -> GRPOConfig:
    """TRL's defaults but for sizes, rate, clipping from above, and how often a batch is used."""
    return GRPOConfig(
        output_dir=str(Path(spec.out) / "trl"),
        learning_rate=spec.settings["learning_rate"],
        num_iterations=int(spec.settings["num_iterations"]),
        num_generations=COMPLETIONS,
        per_device_train_batch_size=_GROUPS_PER_STEP * COMPLETIONS,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        max_completion_length=max_tokens,
        temperature=1.0,
        epsilon_high=spec.settings.get("epsilon_high", _EPSILON_HIGH),
        beta=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=spec.seed,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(spec_from_arguments())
