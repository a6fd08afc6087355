"""Training on a tiny model: it starts from π₀, learns, stops on its budget, and refuses what it must."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tao_daemon.domain.adapter import Fingerprint
from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.domain.signals import TrainingStepped
from tao_daemon.learning import peft_trainer
from tao_daemon.learning.advantage import LearningGroup, Selection, select
from tao_daemon.learning.checkpoints import base_digest
from tao_daemon.learning.contract import (
    ADAPTER_FILE,
    FINGERPRINT_FILE,
    PhaseEntered,
    TrainingSpec,
    WorkerEvent,
    WorkerResult,
)
from tao_daemon.learning.job import Job
from tao_daemon.learning.kl_meter import KlMeter, measured_groups
from tao_daemon.learning.learner import Learner
from tao_daemon.learning.objectives.clipped import ClippedPolicyGradient
from tao_daemon.learning.objectives.ratios import Clip, k3
from tao_daemon.learning.objectives.registry import OBJECTIVES, build_objective
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.parallel import ALONE, Alone
from tao_daemon.learning.peft_policy import Policy, load_policy
from tao_daemon.learning.reference import reference

Shifted = Callable[[float], list[ScoredGroup]]


OBJECTIVE = ClippedPolicyGradient(Clip(0.2, 0.28, 4.0))


def job_of(spec: TrainingSpec, groups: list[ScoredGroup]) -> Job:
    objective = build_objective(spec, groups)
    return Job(spec, select(groups, objective, min_spread=0.05, max_sequence_tokens=64))


def selection_of(groups: list[ScoredGroup]) -> Selection:
    return select(groups, OBJECTIVE, min_spread=0.05, max_sequence_tokens=64)


def train(spec: TrainingSpec, groups: list[ScoredGroup], folder: Path) -> tuple[WorkerResult, list[WorkerEvent]]:
    events: list[WorkerEvent] = []
    folder.mkdir(exist_ok=True)
    return peft_trainer.train(job_of(spec, groups), folder, events.append, Alone()), events


def test_ratios_are_one_and_the_step_is_unclipped_before_the_first_update(
    spec: TrainingSpec, policy: Policy, batch: list[ScoredGroup]
) -> None:
    groups = reference(policy, selection_of(batch), spec)
    for pack in (pack for group in groups for pack in group.packs):
        # other neighbours in the micro-batch round differently
        torch.testing.assert_close(policy.logprobs(pack.pack).detach(), pack.fixed.reference_T, rtol=0, atol=1e-5)
        torch.testing.assert_close(pack.fixed.weights_T, torch.ones_like(pack.fixed.weights_T), rtol=0, atol=1e-5)
    step = Learner(policy, OBJECTIVE, spec, ALONE).gradient(groups)
    assert step.clipped == 0
    assert step.gradient_norm > 0


def test_loss_is_normalised_by_group_and_longest_completion(
    spec: TrainingSpec, policy: Policy, batch: list[ScoredGroup]
) -> None:
    chosen = selection_of(batch)
    groups = reference(policy, chosen, spec)
    longest = chosen.sizes.longest
    for group, learning in zip(groups, chosen.groups, strict=True):
        for pack in group.packs:
            scale = torch.tensor(1 / (len(learning.samples) * longest))
            torch.testing.assert_close(pack.fixed.scales_S, scale.expand_as(pack.fixed.scales_S))
    expected = -sum(
        sum(sample.advantage * len(sample.token_ids) for sample in group.samples) / (len(group.samples) * longest)
        for group in chosen.groups
    ) / len(chosen.groups)
    assert Learner(policy, OBJECTIVE, spec, ALONE).gradient(groups).loss == pytest.approx(expected, rel=1e-4)


def test_a_group_split_over_packs_gives_the_same_gradient(
    spec: TrainingSpec, policy: Policy, batch: list[ScoredGroup]
) -> None:
    norms = []
    for tokens in (1024, 12):
        limited = replace(spec, micro_batch_tokens=tokens, gradient_clip=1e9)
        groups = reference(policy, selection_of(batch), limited)
        norms.append(Learner(policy, OBJECTIVE, limited, ALONE).gradient(groups).gradient_norm)
        for parameter in policy.parameters:
            parameter.grad = None
    assert len(groups[0].packs) > 1
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_the_rewarded_token_becomes_likelier_and_the_files_prove_it(
    spec: TrainingSpec,
    policy: Policy,
    batch: list[ScoredGroup],
    tmp_path: Path,
    target_probability: Callable[[Policy], float],
) -> None:
    result, events = train(replace(spec, clip_high=9.0), batch, tmp_path)  # the usual clip allows 1.28 times at most
    trained = load_policy(replace(spec, start_adapter=str(tmp_path)))
    assert target_probability(trained) > 2 * target_probability(policy)

    assert [e.name for e in events if isinstance(e, PhaseEntered)] == ["loading", "reference", "training", "saving"]
    steps = [e for e in events if isinstance(e, TrainingStepped)]
    assert [(s.step, s.steps) for s in steps] == [(n, 8) for n in range(1, 9)]
    assert 0 < steps[0].kl < steps[-1].kl
    assert result.metrics["kl"] == result.metrics["kl_max"] == steps[-1].kl
    assert result.base_digest == base_digest(Path(spec.base_model))
    assert result.metrics["mismatch"] < 1e-5
    assert result.metrics["steps"] == result.metrics["steps_kept"] == 8
    assert result.metrics["stopped_on_kl"] == 0

    fingerprint = Fingerprint.from_json((tmp_path / FINGERPRINT_FILE).read_text())
    assert len(fingerprint.probes) == 8
    assert result.metrics["change"] > 0.1
    for probe in fingerprint.probes:
        (pack,) = pack_group(probe.token_ids[: probe.start], [probe.token_ids[probe.start :]], 1000)
        with torch.no_grad():
            assert trained.logprobs(pack).tolist() == pytest.approx(list(probe.adapter_logprobs), abs=1e-5)
            with trained.base_only():
                assert trained.logprobs(pack).tolist() == pytest.approx(list(probe.base_logprobs), abs=1e-5)


def test_the_same_seed_gives_the_same_bytes(spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path) -> None:
    short = replace(spec, epochs=1)
    for name, chosen in (("a", short), ("b", short), ("c", replace(short, seed=4))):
        train(chosen, batch, tmp_path / name)
    first, second, other = ((tmp_path / name / ADAPTER_FILE).read_bytes() for name in "abc")
    assert first == second
    assert first != other


def test_a_second_round_starts_from_the_adapter_that_sampled(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path
) -> None:
    result, _ = train(spec, batch, tmp_path / "first")
    second = replace(spec, start_adapter=str(tmp_path / "first"), start_base_digest=result.base_digest, max_mismatch=9)
    start = load_policy(second)
    groups = reference(start, selection_of(batch), second)
    again, _ = train(second, batch, tmp_path / "second")
    # the batch was drawn from the base model, so its mismatch is the distance that the first round went
    assert again.metrics["mismatch"] > 0.1
    assert any(bool((pack.fixed.weights_T == 0).any()) for group in groups for pack in group.packs)
    assert again.metrics["masked_sequences"] > 0


@pytest.mark.parametrize("algorithm", OBJECTIVES)
def test_weights_beyond_the_kl_budget_are_never_kept(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path, algorithm: str
) -> None:
    free = replace(spec, algorithm=algorithm, learning_rate=1e-3)
    _, events = train(free, batch, tmp_path / "free")
    unbound = [e.kl for e in events if isinstance(e, TrainingStepped)]
    assert unbound[0] < unbound[2]
    budget = (max(unbound[:2]) + unbound[2]) / 2
    result, events = train(replace(free, kl_budget=budget), batch, tmp_path / "bound")
    steps = [e.kl for e in events if isinstance(e, TrainingStepped)]
    assert steps == unbound[:3]
    assert result.metrics["stopped_on_kl"] == 1
    assert (result.metrics["steps"], result.metrics["steps_kept"]) == (3, 2)
    assert result.metrics["kl"] == unbound[1] < budget < result.metrics["kl_max"] == unbound[2]

    # the artefact itself, by a meter of its own
    start = load_policy(free)
    meter = KlMeter(start, job_of(free, batch).selection.groups, free)
    kept = load_policy(replace(free, start_adapter=str(tmp_path / "bound")))
    with torch.no_grad():
        for own, trained in zip(start.parameters, kept.parameters, strict=True):
            own.copy_(trained)
    assert meter.nats() == pytest.approx(unbound[1], rel=1e-6)


def test_a_first_look_beyond_the_budget_is_an_error_with_figures(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"after step 1, .* nats per token .*kl_budget is 1e-09; lower training"):
        train(replace(spec, kl_budget=1e-9), batch, tmp_path)
    assert not (tmp_path / ADAPTER_FILE).exists()


def test_strategy_samples_do_not_count_as_mismatch(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path
) -> None:
    def far_off(scored: ScoredGroup) -> ScoredGroup:
        completions = tuple(
            c if c.is_plain else replace(c, logprobs=(-50.0,) * len(c.logprobs)) for c in scored.group.completions
        )
        return replace(scored, group=replace(scored.group, completions=completions))

    result, _ = train(replace(spec, epochs=1), [far_off(scored) for scored in batch], tmp_path)
    assert result.metrics["mismatch"] < 1e-5
    assert result.metrics["masked_sequences"] == 0
    assert result.metrics["plain_tokens"] < sum(len(s.token_ids) for g in selection_of(batch).groups for s in g.samples)


def test_the_mismatch_is_measured_and_stops_also_where_no_plain_sample_trains(
    spec: TrainingSpec, shifted: Shifted, tmp_path: Path
) -> None:
    """RAFT takes the best, and here they are a strategy's."""
    spec = replace(spec, algorithm="raft", epochs=1)
    result, _ = train(spec, [replace(g, rewards=(*[0.0] * 5, 1.0)) for g in shifted(0.03)], tmp_path)
    assert result.metrics["plain_tokens"] == 0
    assert result.metrics["mismatch"] == pytest.approx(0.03, rel=1e-3)
    with pytest.raises(TrainingError, match=r"differ by 1\.000 nats per token"):
        train(spec, [replace(g, rewards=(*[0.0] * 5, 1.0)) for g in shifted(1.0)], tmp_path)


@pytest.mark.parametrize(
    ("nats", "message"),
    [(1.0, "differ by 1.000 nats per token, training.max_mismatch is 0.2"), (0.17, "all 40 plain sequences diverge")],
)
def test_a_sampler_that_is_not_the_trainer_is_refused(
    spec: TrainingSpec, shifted: Shifted, tmp_path: Path, nats: float, message: str
) -> None:
    groups = [replace(g, rewards=(*g.rewards[:5], 0.0)) for g in shifted(nats)]  # no strategy sample is left
    with pytest.raises(TrainingError, match=message):
        train(spec, groups, tmp_path)
    assert not (tmp_path / ADAPTER_FILE).exists()


def test_a_little_noise_of_the_sampler_is_corrected(spec: TrainingSpec, shifted: Shifted, tmp_path: Path) -> None:
    result, _ = train(replace(spec, epochs=1), shifted(0.03), tmp_path)
    assert result.metrics["mismatch"] == pytest.approx(0.03, rel=1e-3)
    assert result.metrics["masked_sequences"] == 0


def test_numbers_that_explode_fail_with_the_step(spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"after step 1 .*lower training.learning_rate"):
        train(replace(spec, learning_rate=1e30), batch, tmp_path)
    assert not (tmp_path / ADAPTER_FILE).exists()


@pytest.mark.parametrize(("rate", "message"), [(1e30, "no numbers; lower"), (1e-45, "changes nothing .* raise")])
def test_the_last_step_is_checked_too(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path, rate: float, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train(replace(spec, epochs=1, groups_per_step=8, learning_rate=rate), batch, tmp_path)
    assert not (tmp_path / ADAPTER_FILE).exists()


def test_a_broken_base_is_found_before_training(spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in Path(spec.base_model).iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="not finite; check the base model"):
        train(replace(spec, base_model=str(base)), batch, tmp_path / "out")


def test_another_base_than_the_start_adapter_knew_is_refused(
    spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="trained on base 00ff"):
        train(replace(spec, start_base_digest="00ff"), batch, tmp_path)


def test_tokens_of_another_model_are_refused(spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path) -> None:
    foreign = [replace(batch[0], group=replace(batch[0].group, prompt_token_ids=(64,))), *batch[1:]]
    with pytest.raises(TrainingError, match="token 64, the base model's vocabulary has 64"):
        train(spec, foreign, tmp_path)


@pytest.mark.parametrize("algorithm", OBJECTIVES)
def test_the_distance_is_k3_of_all_plain_samples_whatever_trains(
    spec: TrainingSpec, policy: Policy, batch: list[ScoredGroup], algorithm: str
) -> None:
    chosen = job_of(replace(spec, algorithm=algorithm), batch).selection
    meter = KlMeter(policy, chosen.groups, spec)
    assert meter.nats() == 0
    measured = measured_groups(chosen.groups, spec.seed)
    assert len(measured) == 4
    looked_at = [(g.prompt_token_ids, [sample.token_ids for sample in g.plain[:4]]) for g in measured]
    packs = [pack for prompt, samples in looked_at for pack in pack_group(prompt, samples, 1000)]
    assert sum(len(set(pack.owners)) for pack in packs) == 16
    with torch.no_grad():
        before = [policy.logprobs(pack) for pack in packs]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(torch.randn_like(parameter) * 0.05)
        expected = [k3(policy.logprobs(pack) - start) for pack, start in zip(packs, before, strict=True)]
    assert meter.nats() == pytest.approx(torch.cat(expected).mean().item(), rel=1e-4)


def test_without_a_plain_sample_there_is_no_distance(spec: TrainingSpec, policy: Policy) -> None:
    with pytest.raises(TrainingError, match=r"no plain completion .* raise training.max_sequence_tokens"):
        KlMeter(policy, [LearningGroup((1,), ())], spec)


def test_metrics_are_plain_numbers(spec: TrainingSpec, batch: list[ScoredGroup], tmp_path: Path) -> None:
    result, _ = train(replace(spec, epochs=1), batch, tmp_path)
    assert json.loads(json.dumps(dict(result.metrics))) == result.metrics
