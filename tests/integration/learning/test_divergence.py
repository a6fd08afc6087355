"""A candidate's divergence against the definition in float64, and through the daemon's port."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel

from tao_daemon.config import Training
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, Lineage
from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.ports import DivergenceJob
from tao_daemon.learning import divergence
from tao_daemon.learning.checkpoints import base_digest
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.divergence_contract import DivergenceSpec, SampledAnswer
from tao_daemon.learning.machine_memory import measuring_fit
from tao_daemon.learning.peft_policy import load_policy
from tao_daemon.learning.subprocess_trainer import SubprocessTrainer


def answers(count: int = 7) -> list[SampledAnswer]:
    rng = random.Random(4)

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(64) for _ in range(rng.randint(1, most)))

    return [SampledAnswer(tokens(9), tokens(20)) for _ in range(count)]


@pytest.fixture
def adapter(spec: TrainingSpec, tmp_path: Path) -> Callable[[str, float], str]:
    """Saves an adapter whose weights all differ from 0 by about `size`."""

    def make(name: str, size: float) -> str:
        policy = load_policy(spec)
        torch.manual_seed(len(name))
        with torch.no_grad():
            for parameter in policy.parameters:
                parameter.copy_(torch.randn_like(parameter) * size)
        (tmp_path / name).mkdir()
        policy.save(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def job(spec: TrainingSpec, adapter: Callable[[str, float], str]) -> DivergenceSpec:
    return DivergenceSpec(
        base_model=spec.base_model,
        base_digest=base_digest(Path(spec.base_model)),
        candidate=adapter("candidate", 0.2),
        start=adapter("start", 0.1),
        micro_batch_tokens=60,
        rank=spec.rank,
        memory_headroom=0.0,
        dtype="float32",
    )


def exact_log_softmax(base: str, adapter: str | None, answer: SampledAnswer) -> torch.Tensor:
    """float64, the sequence alone, the whole causal model, the adapter merged into the weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).double().merge_and_unload()
    with torch.no_grad():
        logits = model(torch.tensor([answer.prompt_token_ids + answer.token_ids])).logits[0]
    found: torch.Tensor = logits[len(answer.prompt_token_ids) - 1 : -1].log_softmax(-1)
    return found


def test_equals_the_definition_in_float64(job: DivergenceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "CHUNK_ELEMENTS", 5 * 64)  # five tokens at once
    found = divergence.measure(job, answers())
    from_start, from_base, entropy, tokens = 0.0, 0.0, 0.0, 0
    for answer in answers():
        p, start, base = (exact_log_softmax(job.base_model, a, answer) for a in (job.candidate, job.start, None))
        from_start += float((p.exp() * (p - start)).sum())
        from_base += float((p.exp() * (p - base)).sum())
        entropy -= float((p.exp() * p).sum())
        tokens += len(answer.token_ids)
    assert (found.answers, found.tokens) == (7, tokens)
    assert found.from_start == pytest.approx(from_start / 7, rel=1e-4)
    assert found.from_base == pytest.approx(from_base / 7, rel=1e-4)
    assert found.entropy == pytest.approx(entropy / tokens, rel=1e-5)
    assert found.from_start > 1
    assert abs(found.from_start - found.from_base) > 0.1


def test_nothing_diverges_from_itself(job: DivergenceSpec) -> None:
    found = divergence.measure(replace(job, start=job.candidate), answers())
    assert found.from_start == 0
    assert found.from_base > 0
    assert divergence.measure(replace(job, start=None), answers()).from_start == found.from_base


def test_never_negative_and_the_batch_does_not_matter(
    job: DivergenceSpec, adapter: Callable[[str, float], str]
) -> None:
    near = replace(job, candidate=adapter("nearly", 1e-4), start=None)
    policies = divergence.Policies(near)
    each = [policies.divergences([answer])[0] for answer in answers()]
    assert all(bool((one.from_base_T >= 0).all() and (one.entropy_T > 0).all()) for one in each)
    for alone, together in zip(each, policies.divergences(answers()), strict=True):
        torch.testing.assert_close(together.entropy_T, alone.entropy_T)
    sizes = [len(batch) for batch in divergence.batches(answers(), 60)]
    assert sum(sizes) == 7
    assert 1 < len(sizes) < 7


@pytest.mark.parametrize(
    ("change", "sampled", "message"),
    [
        ({}, [], "no answer of the candidate"),
        ({}, [SampledAnswer((1,), (64,))], "token 64, the base model's vocabulary has 64"),
        ({"base_digest": "00ff"}, [SampledAnswer((1,), (2,))], "trained on base 00ff"),
    ],
)
def test_what_cannot_be_measured_says_why(
    job: DivergenceSpec, change: dict[str, Any], sampled: list[SampledAnswer], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        divergence.measure(replace(job, **change), sampled)


def test_short_memory_means_smaller_batches_and_the_same_figures(
    job: DivergenceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    every = divergence.batches
    monkeypatch.setattr(divergence, "batches", lambda them, limit: (seen.append(limit), every(them, limit))[1])
    much = divergence.measure(replace(job, micro_batch_tokens=4096), answers(), lambda: 2**40)
    with pytest.raises(TrainingError, match=r"needs .* GiB at the least .* lower training.memory_headroom"):
        divergence.measure(job, answers(), lambda: 2**20)
    sizes = [len(answer.prompt_token_ids) + len(answer.token_ids) for answer in answers()]
    needed = measuring_fit(replace(job, micro_batch_tokens=4096), sizes, 2**40).needed
    little = divergence.measure(replace(job, micro_batch_tokens=4096), answers(), lambda: needed - 1)
    assert seen[1] < seen[0] == 4096
    assert little.from_base == pytest.approx(much.from_base, rel=1e-5)


def test_logits_are_compared_in_float32(job: DivergenceSpec, adapter: Callable[[str, float], str]) -> None:
    """A bfloat16 logit is off by up to a 256th of itself: more than this divergence."""
    near = replace(job, candidate=adapter("nearly", 2e-2), start=None)
    exact = divergence.measure(near, answers(40)).from_base
    half = divergence.measure(replace(near, dtype="bfloat16"), answers(40)).from_base
    assert half == pytest.approx(exact, rel=0.5)


def record(folder: str, digest: str) -> AdapterRecord:
    lineage = Lineage(1, None, "model", digest, (), (), "")
    return AdapterRecord(Path(folder).name, "d", Path(folder), 8, 0.0, lineage, Fingerprint(()))


async def test_the_port_measures_in_a_child_and_writes_no_text(job: DivergenceSpec, tmp_path: Path) -> None:
    def group(index: int, answer: SampledAnswer) -> CompletionGroup:
        said = Completion(0, PLAIN, "needle", answer.token_ids, (-1.0,) * len(answer.token_ids), "stop")
        return CompletionGroup(f"p{index}", answer.prompt_token_ids, (said,))

    assert job.start is not None
    ports_job = DivergenceJob(
        round=3,
        attempt=2,
        groups=tuple(group(index, answer) for index, answer in enumerate(answers())),
        candidate=record(job.candidate, job.base_digest),
        start=record(job.start, job.base_digest),
    )
    settings = Training(base_model=Path(job.base_model), micro_batch_tokens=60, dtype="float32", timeout_seconds=120)
    found = await SubprocessTrainer(settings, lambda r, n: tmp_path / str(r) / f"attempt-{n}").measure(ports_job)
    expected = divergence.measure(job, answers())
    assert found.from_start == pytest.approx(expected.from_start, rel=1e-5)
    assert (found.answers, found.tokens) == (expected.answers, expected.tokens)
    (folder,) = (tmp_path / "3").glob("divergence-2-*")
    assert json.loads((folder / "result.json").read_text())["metrics"]["from_base"] == found.from_base
    assert all("needle" not in path.read_text() for path in folder.iterdir())


async def test_a_measurement_that_overruns_says_what_would_help(job: DivergenceSpec, tmp_path: Path) -> None:
    sleeps = (sys.executable, "-c", "import time; time.sleep(60)")
    settings = Training(base_model=Path(job.base_model), command=sleeps, timeout_seconds=0.5)
    trainer = SubprocessTrainer(settings, lambda r, n: tmp_path / str(r) / f"attempt-{n}", grace_seconds=0.1)
    with pytest.raises(TrainingError, match=r"divergence did not end within 0\.5 .*lower gate\.divergence_prompts"):
        await trainer.measure(DivergenceJob(3, 1, (), record(job.candidate, job.base_digest), None))


async def test_the_port_refuses_an_adapter_that_is_gone(job: DivergenceSpec, tmp_path: Path) -> None:
    gone = DivergenceJob(3, 1, (), record(str(tmp_path / "gone"), job.base_digest), None)
    settings = Training(base_model=Path(job.base_model), timeout_seconds=120)
    with pytest.raises(TrainingError, match=r"gone holds no adapter_model.safetensors"):
        await SubprocessTrainer(settings, lambda r, n: tmp_path / str(r) / f"attempt-{n}").measure(gone)
