"""Artefacts as a trainer leaves them: real safetensors, written by the library itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe

Arrays = dict[str, Any]
PROBE = FingerprintProbe((5, 6, 7, 8), 2, (-1.0, -2.0), (-1.5, -2.5))
_MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj")
_NONE: Mapping[str, Any] = MappingProxyType({})


def tensors(rank: int, seed: int = 7) -> Arrays:
    """Of two modules with 12 inputs and 20 outputs."""
    dice = np.random.default_rng(seed)
    found: Arrays = {}
    for module in _MODULES:
        found[f"base_model.model.{module}.lora_A.weight"] = dice.normal(size=(rank, 12)).astype(np.float32)
        found[f"base_model.model.{module}.lora_B.weight"] = dice.normal(size=(20, rank)).astype(np.float32)
    return found


def write_artefact(
    directory: Path,
    *,
    rank: int = 8,
    seed: int = 7,
    change: Callable[[Arrays], None] | None = None,
    config: Mapping[str, Any] = _NONE,
    probes: Sequence[FingerprintProbe] = (PROBE,),
) -> Path:
    """A good artefact in a new directory, which it returns; `change` edits its tensors, `config` its settings."""
    directory.mkdir(parents=True)
    arrays = tensors(rank, seed)
    if change:
        change(arrays)
    save_file(arrays, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    # What peft leaves: only its owner may read it.
    os.chmod(directory / "adapter_model.safetensors", 0o600)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "bias": "none", "use_dora": False}
    settings |= {"target_modules": ["q_proj", "down_proj"], **config}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    (directory / "fingerprint.json").write_text(Fingerprint(tuple(probes)).to_json())
    (directory / "README.md").write_text("an adapter\n")
    return directory
