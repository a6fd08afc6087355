"""The estimate against what a training really takes, and the refusal where that is not to be had."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning import machine_memory, peft_trainer
from tao_daemon.learning.advantage import LearningGroup, LearningSample, Selection, Weighting, select
from tao_daemon.learning.batching import micro_batches
from tao_daemon.learning.contract import ADAPTER_FILE, TrainingSpec, encode_spec
from tao_daemon.learning.job import Job
from tao_daemon.learning.machine_memory import available_bytes, fitted, load_of, model_shape, peak_bytes
from tao_daemon.learning.memory import LOGITS_BYTES, PROCESS_BYTES, Load, needed_bytes
from tao_daemon.learning.objectives.registry import build_objective
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.parallel import ALONE, Alone
from tao_daemon.learning.resuming import Manner

TOKENS = 4096
WIDE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}

MEASURE = """
import sys
from tao_daemon.learning.advantage import LearningGroup, LearningSample, Selection, Weighting
from tao_daemon.learning.contract import decode_spec
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.machine_memory import peak_bytes
from tao_daemon.learning.objectives.registry import build_objective
from tao_daemon.learning.parallel import ALONE
from tao_daemon.learning.peft_policy import load_policy
from tao_daemon.learning.reference import reference

spec = decode_spec(sys.argv[1])
samples = tuple(LearningSample((7,) * 448, (), 0.5 - index % 2, Weighting.UNIT) for index in range(8))
groups = tuple(LearningGroup((3,) * 512, samples) for _ in range(int(sys.argv[2])))
chosen = Selection(groups, build_objective(spec, []))
learner = Learner(load_policy(spec), chosen.objective, spec, ALONE)
before = peak_bytes()
if groups:
    learner.gradient(reference(learner.policy, chosen, spec))
    learner.move()
print(before, peak_bytes())
"""


@pytest.mark.parametrize("recomputed", [False, True])
def test_the_estimate_is_near_what_is_taken(spec: TrainingSpec, tmp_path: Path, recomputed: bool) -> None:
    """Within a factor of 1.6, and hardly too little where activations are recomputed because memory is short; what the
    process holds before the first micro-batch is taken off both."""
    torch.manual_seed(1)
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**WIDE))  # type: ignore[no-untyped-call]
    model.save_pretrained(tmp_path)
    wide = replace(
        spec, base_model=str(tmp_path), rank=16, micro_batch_tokens=TOKENS, checkpoint_activations=recomputed
    )
    command = [sys.executable, "-c", MEASURE, encode_spec(wide), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    before, peak = map(int, done.stdout.split())
    shape = model_shape(tmp_path)
    load = Load(TOKENS, longest=960, largest=TOKENS, step=TOKENS, total=TOKENS, number_bytes=4, rank=16)
    fixed = PROCESS_BYTES + shape.parameters * 4 + LOGITS_BYTES  # the vocabulary is too small to fill the logits' part
    estimate = needed_bytes(shape, load, recomputed=recomputed) - fixed
    print(f"recomputed {recomputed}: estimate {estimate / 2**20:.0f} MiB, measured {(peak - before) / 2**20:.0f} MiB")
    assert (0.9 if recomputed else 1 / 1.6) < estimate / (peak - before) < 1.6


def test_shapes_are_read_without_a_tensor(tmp_path: Path) -> None:
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**WIDE))  # type: ignore[no-untyped-call]
    model.save_pretrained(tmp_path)
    shape = model_shape(tmp_path)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    linear = [layer for layer in model.model.modules() if isinstance(layer, torch.nn.Linear)]
    assert shape.linear_widths == sum(layer.in_features + layer.out_features for layer in linear)
    assert (shape.vocabulary, shape.layers, shape.hidden) == (128, 8, 128)
    assert (shape.queries, shape.intermediate) == (128, 512)


def test_padding_counts(spec: TrainingSpec) -> None:
    """A long prompt beside a long answer: the batch is as wide as both together, and so is every row of it."""
    samples = [tuple(LearningSample((7,) * n, (), 0.5, Weighting.UNIT) for _ in range(2)) for n in (5, 500)]
    groups = (LearningGroup((3,) * 1000, samples[0]), LearningGroup((3,) * 10, samples[1]))
    load = load_of(Job(spec, Selection(groups, build_objective(spec, []))), 10_000, 4)
    packs = [pack_group(g.prompt_token_ids, [s.token_ids for s in g.samples], 10_000)[0] for g in groups]
    (batch,) = micro_batches([pack.size for pack in packs], 10_000)
    prompts, completions = zip(*(packs[index].size for index in batch), strict=True)
    assert load.step >= len(batch) * (max(prompts) + max(completions)) > sum(prompts) + sum(completions)
    assert (load.longest, load.largest, load.step, load.total) == (1005, 2000, 4000, 4000)


def test_what_does_not_fit_is_refused_before_the_base_is_loaded(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(spec: TrainingSpec) -> None:
        pytest.fail("the base was loaded")

    monkeypatch.setattr(peft_trainer, "load_policy", loaded)
    objective = build_objective(spec, batch)
    job = Job(spec, select(batch, objective, min_spread=0.05, max_sequence_tokens=64))
    with pytest.raises(TrainingError, match=r"needs 0\.\d+ GiB at the least .* 0\.22 GiB of 0\.25 GiB free"):
        peft_trainer.train(job, tmp_path, lambda event: None, Alone(), lambda: 2**28)


def test_short_memory_means_smaller_micro_batches_and_the_same_training(
    spec: TrainingSpec, many: Callable[[int], list[ScoredGroup]], tmp_path: Path
) -> None:
    groups = many(8)
    once = replace(spec, epochs=1)
    job = Job(once, select(groups, build_objective(once, groups), min_spread=0.05, max_sequence_tokens=64))
    job = replace(job, spec=replace(once, memory_headroom=0.0))

    def trained(name: str, free: float) -> Mapping[str, float]:
        (tmp_path / name).mkdir()
        metrics = peft_trainer.train(job, tmp_path / name, lambda event: None, Alone(), lambda: int(free)).metrics
        assert (tmp_path / name / ADAPTER_FILE).is_file()
        return metrics

    much = trained("much", 2**34)
    little = trained("little", much["memory_needed_bytes"] - 1)
    assert little["micro_batch_tokens"] < much["micro_batch_tokens"] == 1024
    assert little["memory_needed_bytes"] < much["memory_needed_bytes"]
    assert little["loss"] == pytest.approx(much["loss"], rel=1e-3)


def test_a_resumed_training_says_when_it_computes_otherwise(
    spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    samples = tuple(LearningSample((7,) * 300, (), 0.5 - index % 2, Weighting.UNIT) for index in range(8))
    groups = tuple(LearningGroup((3,) * 100, samples) for _ in range(8))
    job = Job(spec, Selection(groups, build_objective(spec, [])))
    before = Manner(8192, False, "float32", 1)
    _, plenty = fitted(job, ALONE, lambda: 64 * 2**30, before)
    assert (plenty.micro_batch_tokens, caplog.records) == (8192, [])
    less, _ = fitted(job, ALONE, lambda: plenty.needed, before)
    assert less.micro_batch_tokens < 8192
    assert [record.getMessage() for record in caplog.records] == [
        "other memory or hardware than before the restart, numbers round otherwise"
    ]


@pytest.mark.parametrize(("native", "dtype"), [(torch.float32, "auto"), (torch.bfloat16, "bfloat16")])
def test_a_resumed_training_never_goes_on_in_emulated_bfloat16(
    native: torch.dtype, dtype: str, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tuple(LearningSample((7,) * 30, (), 0.5 - index % 2, Weighting.UNIT) for index in range(8))
    job = Job(replace(spec, dtype="auto"), Selection((LearningGroup((3,), samples),), build_objective(spec, [])))
    monkeypatch.setattr(machine_memory, "choose_dtype", lambda requested, device: native)
    found, _ = fitted(job, ALONE, lambda: 64 * 2**30, Manner(8192, False, "bfloat16", 1))
    assert found.dtype == dtype


def test_this_machine_has_memory() -> None:
    assert 2**20 < available_bytes() < 2**50
    assert peak_bytes() > 2**26
