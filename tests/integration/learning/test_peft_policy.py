"""The policy: its base, its adapter, its precision, and the files it leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning import peft_policy
from tao_daemon.learning.contract import ADAPTER_CONFIG_FILE, ADAPTER_FILE, TrainingSpec
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.peft_policy import Policy, choose_dtype, load_policy

PROMPT = [5, 9, 1, 33, 20, 8, 2]
COMPLETIONS = [[4, 4, 8, 1], [60], [7, 30, 2, 2, 19, 5], [11, 12, 13]]


def randomised(policy: Policy) -> Policy:
    """LoRA B starts at 0, which would hide every gradient of A."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return policy


def test_a_new_adapter_is_the_base_model_and_ratios_start_at_one(policy: Policy) -> None:
    (pack,) = pack_group(PROMPT, COMPLETIONS, 1000)
    with torch.no_grad():
        reference = policy.logprobs(pack)
        with policy.base_only():
            base = policy.logprobs(pack)
    assert torch.equal(reference, base)
    assert torch.equal(policy.logprobs(pack).detach(), reference)
    randomised(policy)
    with torch.no_grad():
        assert (policy.logprobs(pack) - reference).abs().mean() > 0.1
        with policy.base_only():
            assert torch.equal(policy.logprobs(pack), reference)


def test_lora_covers_every_linear_layer_in_float32_and_nothing_else_learns(policy: Policy) -> None:
    assert len(policy.parameters) == 2 * 7 * 2
    assert {parameter.dtype for parameter in policy.parameters} == {torch.float32}


def test_saved_adapter_continues_exactly_where_it_was(policy: Policy, spec: TrainingSpec, tmp_path: Path) -> None:
    randomised(policy).save(tmp_path)
    (pack,) = pack_group(PROMPT, COMPLETIONS, 1000)
    again = load_policy(replace(spec, start_adapter=str(tmp_path)))
    assert torch.equal(again.logprobs(pack), policy.logprobs(pack))
    assert all(parameter.requires_grad for parameter in again.parameters)
    assert len(again.parameters) == len(policy.parameters)


def test_saved_files_are_what_vllm_reads_and_reproducible(policy: Policy, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        policy.save(folder)
    names = sorted(path.name for path in first.iterdir())
    assert names == [ADAPTER_CONFIG_FILE, ADAPTER_FILE]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    keys = load_file(first / ADAPTER_FILE).keys()
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in keys
    assert not any("lm_head" in key or "embed" in key for key in keys)
    config = json.loads((first / ADAPTER_CONFIG_FILE).read_text())
    modules = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (8, 16, modules)
    assert (config["use_dora"], config["bias"], config["modules_to_save"]) == (False, "none", None)


def test_a_head_that_scales_its_logits_is_refused(spec: TrainingSpec, tmp_path: Path) -> None:
    config = transformers.CohereConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    transformers.CohereForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match=r"cohere is not supported: logit_scale"):
        load_policy(replace(spec, base_model=str(tmp_path)))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx2", "fma"}, torch.float32), ({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16)],
)
def test_auto_takes_bfloat16_only_where_it_is_native(
    flags: set[str], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_policy, "_cpu_flags", lambda: flags)
    assert choose_dtype("auto", torch.device("cpu")) == expected
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert choose_dtype("float32", torch.device("cpu")) == torch.float32


def test_bfloat16_base_stays_close_and_learns_in_float32(policy: Policy, spec: TrainingSpec) -> None:
    (pack,) = pack_group(PROMPT, COMPLETIONS, 1000)
    half = load_policy(replace(spec, dtype="bfloat16"))
    logprobs = half.logprobs(pack)
    assert (logprobs - policy.logprobs(pack)).abs().mean() < 0.1
    assert torch.equal(logprobs.detach(), half.logprobs(pack).detach())
    logprobs.sum().backward()
    assert {parameter.grad.dtype for parameter in half.parameters if parameter.grad is not None} == {torch.float32}


@pytest.mark.parametrize("checkpointed", [False, True])
def test_checkpointing_computes_each_layer_again_in_the_backward_pass(spec: TrainingSpec, checkpointed: bool) -> None:
    policy = load_policy(replace(spec, checkpoint_activations=checkpointed))
    passes: list[int] = []
    layers = [module for module in policy._model.modules() if type(module).__name__ == "LlamaMLP"]
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, number=number: passes.append(number))
    (pack,) = pack_group(PROMPT, COMPLETIONS, 1000)
    policy.logprobs(pack).sum().backward()  # type: ignore[no-untyped-call]
    assert passes == ([0, 1, 1, 0] if checkpointed else [0, 1])
    assert all(parameter.grad is not None for parameter in policy.parameters)
