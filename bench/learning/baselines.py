"""What the trainers that are not ours share: base model with a LoRA of the same shape, and an artefact like ours.

Runs in child processes only. spec.json → train → artefact/ (safetensors, adapter_config.json, fingerprint.json)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.learning.lab_settings import ALPHA, RANK
from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_PROBES = 8


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What a baseline's process is told; `out` is where it writes."""

    model_dir: str
    start: str | None
    """Folder of the adapter to go on from."""
    out: str
    task: str
    task_seed: int
    first: int
    """Index of the first training item."""
    count: int
    seed: int
    settings: dict[str, float]

    @classmethod
    def read(cls, path: str) -> ChildSpec:
        return cls(**json.loads(Path(path).read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2))


def model_and_tokenizer(spec: ChildSpec) -> tuple[Any, Any]:
    """Base with LoRA, the base frozen, everything float32 on a processor without native bfloat16."""
    torch.manual_seed(spec.seed)
    tokenizer = AutoTokenizer.from_pretrained(spec.model_dir, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(spec.model_dir, dtype=torch.float32, local_files_only=True)
    if spec.start:
        return PeftModel.from_pretrained(base, spec.start, is_trainable=True, local_files_only=True), tokenizer
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
    return get_peft_model(base, config), tokenizer


def encoded(tokenizer: Any, request: Any, answer: str) -> tuple[list[int], list[int]]:
    """Prompt and answer as the server would have them, the end token included."""
    prompt = tokenizer.apply_chat_template(
        list(request["messages"]), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return list(prompt), [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def save(model: Any, pairs: Sequence[tuple[list[int], list[int]]], directory: Path) -> None:
    """Adapter and fingerprint. `pairs` are (prompt, completion) token ids to prove it by."""
    directory.mkdir(parents=True)
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {**model.active_peft_config.to_dict(), "inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str))
    probes = [_probe(model, prompt, completion) for prompt, completion in pairs[:_PROBES]]
    (directory / "fingerprint.json").write_text(Fingerprint(tuple(probes)).to_json())


@torch.no_grad()
def _probe(model: Any, prompt: list[int], completion: list[int]) -> FingerprintProbe:
    training = model.training
    model.eval()

    def logprobs() -> tuple[float, ...]:
        ids = torch.tensor([prompt + completion])
        rows = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
        return tuple(rows.gather(-1, ids[0, 1:, None])[:, 0][len(prompt) - 1 :].tolist())

    with_adapter = logprobs()
    with model.disable_adapter():
        with_base = logprobs()
    model.train(training)
    return FingerprintProbe(tuple(prompt + completion), len(prompt), with_adapter, with_base)


def finish(spec: ChildSpec, result: dict[str, Any]) -> None:
    """What was measured, for the parent."""
    (Path(spec.out) / "result.json").write_text(json.dumps(result, indent=2))


def spec_from_arguments() -> ChildSpec:
    return ChildSpec.read(sys.argv[1])
