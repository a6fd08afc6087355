"""LoRA fine-tuning on gold answers: `python -m bench.learning.labelled SPEC`, in a process of its own.

Cross entropy on the answer's tokens, AdamW, linear warm-up over the first tenth and linear decay after it; an artefact
at each of `EPOCHS`, so that the dev split can choose. The decay is that of the longest run.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bench.learning.baselines import ChildSpec, encoded, finish, model_and_tokenizer, save, spec_from_arguments
from bench.learning.tasks import TASKS
from bench.learning.tasks.task import Split

EPOCHS = (2, 4, 8)
_BATCH = 8
_WARMUP = 0.1
Pair = tuple[list[int], list[int]]


def main(spec: ChildSpec) -> None:
    task = TASKS[spec.task]
    model, tokenizer = model_and_tokenizer(spec)
    items = task.items(Split.TRAIN, spec.task_seed, spec.count, first=spec.first)
    pairs = [encoded(tokenizer, item.request, item.gold) for item in items]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.0, weight_decay=0.0)
    total = max(EPOCHS) * -(-len(pairs) // _BATCH)
    model.train()
    done, seconds, began = 0, {}, time.monotonic()
    for epoch in range(1, max(EPOCHS) + 1):
        order = random.Random(f"{spec.seed}/{epoch}").sample(range(len(pairs)), len(pairs))
        for first in range(0, len(order), _BATCH):
            for group in optimizer.param_groups:
                group["lr"] = spec.settings["learning_rate"] * rate(done / total)
            loss(model, [pairs[place] for place in order[first : first + _BATCH]]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
        if epoch in EPOCHS:
            seconds[str(epoch)] = time.monotonic() - began
            save(model, pairs, Path(spec.out) / f"epoch-{epoch}")
    finish(spec, {"seconds": seconds, "tokens": sum(len(a) + len(b) for a, b in pairs) * max(EPOCHS)})


def rate(progress: float) -> float:
    """Share of the learning rate at a share of all steps."""
    return min(1.0, (progress + 1e-3) / _WARMUP) if progress < _WARMUP else (1.0 - progress) / (1.0 - _WARMUP)


def loss(model: Any, pairs: list[Pair]) -> torch.Tensor:
    """Mean cross entropy over the answers' tokens; rows are padded to the right."""
    length = max(len(a) + len(b) for a, b in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


if __name__ == "__main__":
    main(spec_from_arguments())
