"""A LoRA with random weights, and what transformers computes for it: an artefact as the trainer leaves it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, FingerprintProbe, Lineage
from tao_daemon.registry.adapter_store import DirectoryAdapterStore

PROBES, PROMPT, COMPLETION = 4, 6, 24
_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_random_adapter(model_dir: Path, directory: Path, *, seed: int) -> Path:
    """Into `directory`: weights, configuration and fingerprint."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    adapted: Any = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=_MODULES)).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    ids = torch.randint(3, model.config.vocab_size, (PROBES, PROMPT + COMPLETION))

    def logprobs() -> list[tuple[float, ...]]:
        with torch.no_grad():
            rows = torch.log_softmax(adapted(ids).logits[:, :-1].float(), -1)
        found = rows.gather(-1, ids[:, 1:, None])[..., 0][:, PROMPT - 1 :]
        return [tuple(row.tolist()) for row in found]

    with_adapter = logprobs()
    with adapted.disable_adapter():
        with_base = logprobs()
    adapted.save_pretrained(directory)
    probes = [
        FingerprintProbe(tuple(row), PROMPT, a, b)
        for row, a, b in zip(ids.tolist(), with_adapter, with_base, strict=True)
    ]
    (directory / "fingerprint.json").write_text(Fingerprint(tuple(probes)).to_json())
    return directory


def publish_random_adapters(model_dir: Path, scratch: Path, store: DirectoryAdapterStore, count: int) -> list[str]:
    """Names of `count` new adapters in `store`, of the rounds 1, 2, …"""
    records: list[AdapterRecord] = []
    for number in range(1, count + 1):
        artefact = write_random_adapter(model_dir, scratch / f"artefact-{number}", seed=number)
        lineage = Lineage(number, None, "base", "0" * 64, (), (), os.urandom(8).hex())
        records.append(store.publish(str(artefact), lineage, float(number)))
    return [record.name for record in records]
