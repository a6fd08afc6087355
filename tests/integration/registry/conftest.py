"""Artefacts as a trainer leaves them: real safetensors, written by the library itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe

Artefact = Callable[..., Path]
Arrays = dict[str, Any]


def tensors(rank: int) -> Arrays:
    rng = np.random.default_rng(7)
    found: Arrays = {}
    for module in ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"):
        found[f"base_model.model.{module}.lora_A.weight"] = rng.normal(size=(rank, 12)).astype(np.float32)
        found[f"base_model.model.{module}.lora_B.weight"] = rng.normal(size=(20, rank)).astype(np.float32)
    return found


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    """Writes a good artefact into a new directory; `change` edits its tensors, `config` its settings."""
    count = iter(range(1000))

    def write(
        *, rank: int = 8, change: Callable[[Arrays], None] | None = None, config: Mapping[str, Any] | None = None
    ) -> Path:
        directory = tmp_path / f"artefact-{next(count)}"
        directory.mkdir()
        arrays = tensors(rank)
        if change:
            change(arrays)
        save_file(arrays, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        # What peft leaves: only its owner may read it.
        os.chmod(directory / "adapter_model.safetensors", 0o600)
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "bias": "none", "use_dora": False}
        settings |= {"target_modules": ["q_proj", "down_proj"], **(config or {})}
        (directory / "adapter_config.json").write_text(json.dumps(settings))
        probe = FingerprintProbe((5, 6, 7, 8), 2, (-1.0, -2.0), (-1.5, -2.5))
        (directory / "fingerprint.json").write_text(Fingerprint((probe,)).to_json())
        (directory / "README.md").write_text("an adapter\n")
        return directory

    return write
